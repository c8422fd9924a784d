import os

import pytest

from nydusd.base.errors import BuildError
from nydusd.build.from_directory import tree_from_directory


def test_children_are_sorted_by_bytes_and_the_roots_time_is_left_out(tmp_path):
    for name in (b"b", b"a", b"\xff", b"Z", b".x"):
        (tmp_path / os.fsdecode(name)).write_bytes(b"")

    root = tree_from_directory(os.fsencode(tmp_path), True, lambda node: False)

    assert [child.name for child in root.children] == [b".x", b"Z", b"a", b"b", b"\xff"]
    assert (root.name, root.mtime, root.mtime_nsec) == (b"/", 0, 0)


def test_what_is_left_out_is_not_looked_into(tmp_path):
    (tmp_path / "out" / "in").mkdir(parents=True)
    (tmp_path / "kept").mkdir()

    root = tree_from_directory(os.fsencode(tmp_path), True, lambda node: node.name == b"out")

    assert [child.name for child in root.children] == [b"kept"]


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BuildError, match="not a directory"):
        tree_from_directory(os.fsencode(tmp_path / "file"), True, lambda node: False)
