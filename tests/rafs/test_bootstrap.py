import errno
import os

import pytest

from nydusd.base.errors import BootstrapError
from nydusd.rafs.bootstrap import Bootstrap
from tests.rafs.made import (
    CHUNKS,
    DIRECTORY,
    PLAIN,
    REGULAR,
    ImageV6,
    InodeV5,
    chunk_index,
    dirents,
    inode_v6,
    one_file_v5,
    one_file_v6,
)


def test_a_bootstrap_without_a_reader_refuses_every_request() -> None:
    with pytest.raises(OSError, match=os.strerror(errno.ENOSYS)):
        Bootstrap().stat(1)


def test_a_walk_gives_parents_before_children_in_the_order_of_names() -> None:
    made = ImageV6(blobs=[])
    leaf = made.add(inode_v6(REGULAR, 0, CHUNKS))
    block = dirents([(b".", 0, 2), (b"..", 128, 2), (b"leaf", leaf, 1)])
    below = made.add(inode_v6(DIRECTORY, len(block), PLAIN, made.add_block(block)))
    made.root_directory([(b"a", below, 2), (b"b", leaf, 1)])
    bootstrap = made.open()

    assert list(bootstrap.walk()) == [
        (b"/", 128),
        (b"/a", below),
        (b"/a/leaf", leaf),
        (b"/b", leaf),
    ]
    assert [entry.path for entry in bootstrap.walk(b"/a/")] == [b"/a", b"/a/leaf"]
    assert [entry.path for entry in bootstrap.walk(b"a/leaf")] == [b"/a/leaf"]


def test_a_directory_inside_itself_ends_a_walk() -> None:
    made = ImageV6(blobs=[])
    made.root_directory([(b"again", 128, 2)])
    bootstrap = made.open()

    with pytest.raises(BootstrapError, match="two places"):
        list(bootstrap.walk())
    assert bootstrap.find(b"/again/again/again") == 128


def test_directories_nested_deeper_than_the_stack_are_walked() -> None:
    made = ImageV6(blobs=[])
    child = made.add(inode_v6(REGULAR, 0, CHUNKS))
    kind = 1
    for _ in range(5000):
        block = dirents([(b"d", child, kind)])
        child, kind = made.add(inode_v6(DIRECTORY, len(block), 2) + block), 2
    made.root_directory([(b"d", child, 2)])

    assert sum(1 for _ in made.open().walk()) == 5002


def test_a_path_is_found_name_by_name() -> None:
    bootstrap = one_file_v6(inode_v6(REGULAR, 0, CHUNKS))

    assert bootstrap.find(b"//file/") == bootstrap.find(b"file")
    assert bootstrap.find(b"/") == 128
    with pytest.raises(OSError, match=os.strerror(errno.ENOTDIR)):
        bootstrap.find(b"/file/below")
    with pytest.raises(OSError, match=os.strerror(errno.ENOENT)):
        bootstrap.find(b"/other")


def test_spans_of_a_file_come_in_order_whatever_their_number() -> None:
    indexes = b"".join(chunk_index(0, 0, 0) for _ in range(1000))
    bootstrap = one_file_v6(inode_v6(REGULAR, 999 * 4096 + 7, CHUNKS, 0x20) + indexes)

    spans = list(bootstrap.chunk_spans(bootstrap.find(b"/file"), 5))

    assert len(spans) == 1000
    assert sum(span.length for span in spans) == 999 * 4096 + 2
    assert (spans[0].offset, spans[0].length, spans[999].length) == (5, 4091, 7)


@pytest.mark.parametrize("version", [5, 6])
def test_a_name_over_255_bytes_is_too_long_and_not_absent(version: int) -> None:
    if version == 5:
        bootstrap: Bootstrap = one_file_v5(InodeV5(b"file", REGULAR))
    else:
        bootstrap = one_file_v6(inode_v6(REGULAR, 0, CHUNKS))

    with pytest.raises(OSError, match="File name too long"):
        bootstrap.child(bootstrap.root_ino, b"x" * 256)
