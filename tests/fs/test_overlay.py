"""The overlay without a mount: what is left after a crash, numbers, and upper directories."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nydusd.base.errors import MountError
from nydusd.fs.overlay import open_overlay
from tests.fs.memory import ROOT
from tests.fs.overlay_crash import ME, OLD, LowerFs, content, make
from tests.system.overlay_run import lacking

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _able(tmp_path: Path) -> None:
    if reason := lacking(tmp_path):
        pytest.skip(reason)


def test_a_change_that_is_killed_at_any_step_leaves_old_or_new(tmp_path: Path) -> None:
    folder = tmp_path / "layers"
    folder.mkdir()
    program = [sys.executable, "-m", "tests.fs.overlay_crash", str(folder)]

    done = subprocess.run(program, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 50


def test_a_number_stays_when_the_file_is_copied_up_and_moved(tmp_path: Path) -> None:
    overlay = make(tmp_path)
    before = overlay.find(ROOT, b"file")
    overlay.rename(ROOT, b"file", ROOT, b"moved", 0)

    assert overlay.find(ROOT, b"moved").ino == before.ino
    assert overlay.find(ROOT, b"file") is None
    new = overlay.make_directory(ROOT, b"file", 0o700, ME)
    assert new.ino not in (before.ino, overlay.find(ROOT, b"other").ino)
    overlay.close()


def test_a_file_is_forgotten_when_the_kernel_has_forgotten_it(tmp_path: Path) -> None:
    overlay = make(tmp_path)
    found = overlay.find(ROOT, b"file")
    overlay.find(ROOT, b"file")
    overlay.forget(found.ino, 1)
    assert overlay.stat(found.ino).size == len(OLD)
    overlay.forget(found.ino, 1)

    with pytest.raises(OSError, match="not known") as caught:
        overlay.stat(found.ino)

    assert caught.value.errno == errno.ESTALE
    overlay.close()


def test_numbers_of_another_process_are_found_again(tmp_path: Path) -> None:
    first = make(tmp_path)
    folder = first.make_directory(ROOT, b"folder", 0o755, ME)
    inner = first.make_node(folder.ino, b"inner", 0o100600, 0, ME)
    lower = first.find(ROOT, b"file")
    first.close()
    second = open_overlay(
        LowerFs(), str(tmp_path / "upper"), str(tmp_path / "work"), writable=True, recovers=True
    )

    assert second.stat(inner.ino).mode == 0o100600
    assert second.stat(lower.ino).size == len(OLD)
    assert second.write_file(inner.ino, 12345, 0, memoryview(b"data"), 0, False) == 4
    assert second.read_file(inner.ino, 12345, 0, 100) == b"data"
    assert second.read_file(lower.ino, 12345, 0, 10) == OLD[:10]
    with pytest.raises(OSError, match="not known"):
        second.stat(987_654)
    second.close()


def test_an_upper_directory_has_one_user(tmp_path: Path) -> None:
    overlay = make(tmp_path)

    with pytest.raises(MountError, match="in use by another overlay"):
        make(tmp_path)

    overlay.close()
    make(tmp_path).close()


def test_a_listing_goes_on_where_it_was_whatever_is_removed(tmp_path: Path) -> None:
    overlay = make(tmp_path)
    handle = overlay.open_directory(ROOT, 0).handle
    entries = overlay.entries(ROOT, handle, 0)
    first = [next(entries).name for _ in range(3)]
    overlay.remove_file(ROOT, first[2])

    rest = [entry.name for entry in overlay.entries(ROOT, handle, 3)]
    again = [entry.name for entry in overlay.entries(ROOT, handle, 0)]

    assert sorted([*first, *rest]) == [b".", b"..", b"file", b"other"]
    assert first[2] not in again
    overlay.close()


def test_the_sign_of_a_removed_name_cannot_be_made(tmp_path: Path) -> None:
    overlay = make(tmp_path)

    with pytest.raises(OSError, match="0:0") as caught:
        overlay.make_node(ROOT, b"null", 0o020600, 0, ME)

    assert caught.value.errno == errno.EPERM
    with pytest.raises(OSError, match="overlay itself"):
        overlay.set_xattr(ROOT, b"trusted.overlay.opaque", memoryview(b"y"), 0)
    assert content(overlay, b"other") == b"other"
    assert os.listdir(tmp_path / "upper") == []  # noqa: PTH208
    overlay.close()
