import errno
import hashlib
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from nydusd.base.errors import BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.read_v5 import BootstrapV5
from tests.rafs.decode import check_against_decoder
from tests.rafs.exercise import damaged_bootstraps, exercise, golden_bootstraps
from tests.rafs.made import (
    CHAR,
    DIRECTORY,
    REGULAR,
    SYMLINK,
    ImageV5,
    InodeV5,
    chunk_v5,
    one_file_v5,
    root_v5,
    xattr_v5,
)

GOLDEN = golden_bootstraps(5)
HOLES = 8  # inode flag
NO_TABLE = b""


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_an_image_reads_as_an_independent_decoder_reads_it(path: Path) -> None:
    data = path.read_bytes()
    bootstrap = BootstrapV5(Mapping.of_bytes(data))

    check_against_decoder(bootstrap, data)


def test_an_opened_image_tells_what_its_superblock_says() -> None:
    bootstrap = ImageV5([root_v5(0)], prefetch=[1], superblock={"entries": 1}).open()

    assert (bootstrap.version, bootstrap.root_ino, bootstrap.inodes_count) == (5, 1, 1)
    assert (bootstrap.chunk_size, bootstrap.prefetch_inos) == (0x1000, [1])


def test_opening_reads_the_root_and_no_inode_below_it() -> None:
    bootstrap = ImageV5([root_v5(1), InodeV5(b"x" * 300, 0)]).open()

    with raises(errno.EIO):
        bootstrap.entries(1)


def test_dots_are_listed_first_and_found() -> None:
    inodes = [
        root_v5(1),
        InodeV5(b"d", DIRECTORY, child_index=3, child_count=1),
        InodeV5(b"e", DIRECTORY, parent=2, child_index=4),
    ]
    bootstrap = ImageV5(inodes).open()

    assert [entry[:2] for entry in bootstrap.entries(2)] == [(b".", 2), (b"..", 1), (b"e", 3)]
    assert [entry[:2] for entry in bootstrap.entries(1)] == [(b".", 1), (b"..", 1), (b"d", 2)]
    assert [bootstrap.child(3, name) for name in (b".", b"..")] == [3, 2]
    assert bootstrap.child(1, b"..") == 1


def test_a_hard_link_has_the_number_of_its_first_name() -> None:
    chunks = chunk_v5()
    inodes = [
        root_v5(2),
        InodeV5(b"a", REGULAR, 4096, chunks=chunks, nlink=2),
        InodeV5(b"b", REGULAR, 4096, ino=2, chunks=chunks, nlink=2),
    ]
    bootstrap = ImageV5(inodes).open()

    assert bootstrap.find(b"/a") == bootstrap.find(b"/b") == 2
    assert bootstrap.stat(2).nlink == 2
    with raises(errno.ENOENT):
        bootstrap.stat(3)


def test_names_are_found_by_bytes() -> None:
    names = sorted([b"a", b"aa", b"b", b"\xff", b" ", b"-", b"n" * 255])
    bootstrap = ImageV5([root_v5(7), *(InodeV5(name, CHAR, rdev=5) for name in names)]).open()

    for number, name in enumerate(names, 2):
        assert bootstrap.child(1, name) == number
    for name in (b"", b"ab", b"n" * 254, b"n" * 253):
        with raises(errno.ENOENT):
            bootstrap.child(1, name)
    assert bootstrap.stat(2).rdev == 5


def test_owners_are_the_daemons_when_the_image_does_not_say() -> None:
    found = ImageV5([root_v5(0)], flags=0x9).open().stat(1)

    assert (found.uid, found.gid) == (os.geteuid(), os.getegid())


def test_attributes_are_found_by_their_whole_name() -> None:
    pairs = xattr_v5(b"user.a", b"\0\1\0") + xattr_v5(b"security.b", b"")
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 4096, xattrs=pairs, chunks=chunk_v5()))

    assert bootstrap.xattrs(2) == {b"user.a": b"\0\1\0", b"security.b": b""}
    assert bootstrap.xattr_value(2, b"user.a") == b"\0\1\0"
    assert [span.length for span in bootstrap.chunk_spans(2)] == [4096]
    with raises(errno.ENODATA):
        bootstrap.xattr_value(2, b"user.")


@pytest.mark.parametrize(
    "pairs",
    [
        struct.pack("<I", 2**32 - 1) + b"user.a\0",
        struct.pack("<I", 6) + b"user.a",
        struct.pack("<I", 3) + b"\0ab",
        b"\1\0",
        xattr_v5(b"n" * 256, b""),
    ],
    ids=["beyond its area", "no end of name", "no name", "cut", "long name"],
)
def test_a_broken_attribute_is_an_io_error(pairs: bytes) -> None:
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, xattrs=pairs))

    with raises(errno.EIO):
        bootstrap.xattrs(2)
    with raises(errno.EIO):
        bootstrap.xattr_value(2, b"user.zz")


def test_a_read_is_cut_to_its_chunks() -> None:
    chunks = chunk_v5(index=3) + chunk_v5(4096, 1000, index=4, offset=4096)
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 5096, chunks=chunks))

    first, second = bootstrap.chunk_spans(2, 4000, 10**6)

    assert (first.chunk_index, first.offset, first.length) == (3, 4000, 96)
    assert (second.chunk_index, second.offset, second.length) == (4, 0, 1000)
    assert (second.flags, second.compressed_offset, second.compressed_size) == (2, 4096, 1000)
    assert second.digest == bytes(32)
    assert list(bootstrap.chunk_spans(2, 5096)) == []
    with raises(errno.EISDIR):
        list(bootstrap.chunk_spans(1))


@pytest.mark.parametrize(
    "chunk",
    [
        chunk_v5(blob_index=1),
        chunk_v5(index=8),
        chunk_v5(size=0),
        chunk_v5(size=4097),
        chunk_v5(offset=1 << 20),
        chunk_v5(offset=2**64 - 1),
        chunk_v5(file_offset=4096),
        chunk_v5(size=100),
        chunk_v5(compressed_size=100),
        chunk_v5(flags=1, compressed_size=0),
        chunk_v5(flags=1, compressed_size=2**31),
        b"",
    ],
    ids=[
        *("no such blob", "no such chunk", "empty", "large", "behind the blob", "far behind"),
        *("elsewhere in the file", "short", "sizes differ", "nothing stored", "too much stored"),
        "missing",
    ],
)
def test_a_chunk_that_cannot_be_is_an_io_error(chunk: bytes) -> None:
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 4096, chunks=chunk))

    with raises(errno.EIO):
        list(bootstrap.chunk_spans(2))


def test_without_an_extended_table_places_are_not_limited() -> None:
    bootstrap = one_file_v5(
        InodeV5(b"f", REGULAR, 4096, chunks=chunk_v5(index=2**30, offset=2**40)),
        extended=NO_TABLE,
    )

    assert [span.compressed_offset for span in bootstrap.chunk_spans(2)] == [2**40]


def test_holes_read_as_zeros_between_chunks() -> None:
    chunks = chunk_v5(100, 50) + chunk_v5(150, 50, index=1) + chunk_v5(1000, 10, index=2)
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 5000, flags=HOLES, chunks=chunks))

    found = [(s.flags, s.chunk_index, s.offset, s.length) for s in bootstrap.chunk_spans(2)]

    hole, chunk = 1, 2
    assert [(flags, length) for flags, _, _, length in found] == [
        *((hole, 100), (chunk, 50), (chunk, 50), (hole, 800), (chunk, 10), (hole, 3990))
    ]
    assert [s[3:5] for s in bootstrap.chunk_spans(2, 120, 40)] == [(20, 30), (0, 10)]


def test_a_huge_hole_is_told_in_pieces() -> None:
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 2**33, flags=HOLES))

    spans = list(bootstrap.chunk_spans(2))

    assert sum(span.length for span in spans) == 2**33
    assert {span.flags for span in spans} == {1}


def test_chunks_that_go_back_are_an_io_error() -> None:
    chunks = chunk_v5(100, 50) + chunk_v5(120, 30, index=1) + chunk_v5(90, 5, index=2)
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 5000, flags=HOLES, chunks=chunks))

    with raises(errno.EIO):
        list(bootstrap.chunk_spans(2))


def neighbours(*offsets: int) -> BootstrapV5:
    """Files `f0`, `f1`, ... of one chunk each, stored at *offsets*."""
    files = [
        InodeV5(b"f%d" % i, REGULAR, 4096, chunks=chunk_v5(index=i, offset=offset))
        for i, offset in enumerate(offsets)
    ]
    return ImageV5([root_v5(len(files)), *files]).open()


def following(bootstrap: BootstrapV5, limit: int) -> list[int]:
    return [span.chunk_index for span in bootstrap.following_spans(2, 4096, limit)]


def test_chunks_behind_a_read_follow_while_they_are_neighbours() -> None:
    bootstrap = neighbours(0, 4096, 8192 + 100, 4096 * 9)

    assert following(bootstrap, 1 << 20) == [1, 2]
    assert following(bootstrap, 5000) == [1]
    assert following(bootstrap, 100) == []
    assert following(neighbours(8192, 0), 1 << 20) == []


def test_the_rest_of_the_file_follows_first() -> None:
    chunks = b"".join(chunk_v5(4096 * i, index=i, offset=4096 * i) for i in range(4))
    bootstrap = one_file_v5(InodeV5(b"f", REGULAR, 4 * 4096, chunks=chunks))

    found = bootstrap.following_spans(2, 5000, 1 << 20)

    assert [(span.chunk_index, span.offset, span.length) for span in found] == [
        *((2, 0, 4096), (3, 0, 4096))
    ]


@pytest.mark.parametrize(
    "child",
    [
        InodeV5(b"a/b", REGULAR),
        InodeV5(b"a\0b", REGULAR),
        InodeV5(b"n" * 256, REGULAR),
        InodeV5(b"a", 0o70644),
        InodeV5(b"a", REGULAR, ino=0),
        InodeV5(b"a", REGULAR, ino=3),
        InodeV5(b"a", DIRECTORY, ino=1),
        InodeV5(b"a", DIRECTORY, parent=2),
    ],
    ids=["slash", "NUL", "long", "no type", "ino 0", "ino ahead", "root again", "other parent"],
)
def test_a_child_that_cannot_be_is_an_io_error(child: InodeV5) -> None:
    bootstrap = one_file_v5(child)

    with raises(errno.EIO):
        bootstrap.entries(1)
    with raises(errno.EIO):
        bootstrap.child(1, b"a")


@pytest.mark.parametrize(
    ("first", "count"), [(2, 1), (1, 1), (3, 1), (2**32 - 1, 2**32 - 1), (2, 2**31)]
)
def test_children_outside_the_table_or_before_their_parent_are_an_io_error(
    first: int, count: int
) -> None:
    inode = InodeV5(b"d", DIRECTORY, child_index=first, child_count=count)
    bootstrap = one_file_v5(inode)

    with raises(errno.EIO):
        bootstrap.entries(2)


@pytest.mark.parametrize("offset", [0, 8, 8192 >> 3, 2**29 - 1, 2**32 - 1])
def test_an_inode_outside_the_file_is_an_io_error(offset: int) -> None:
    data = bytearray(ImageV5([root_v5(1), InodeV5(b"a", REGULAR)]).build())
    struct.pack_into("<I", data, 8192 + 4, offset)
    bootstrap = BootstrapV5(Mapping.of_bytes(bytes(data)))

    with raises(errno.EIO):
        bootstrap.stat(2)


def test_a_link_without_a_target_is_an_io_error() -> None:
    bootstrap = one_file_v5(InodeV5(b"l", SYMLINK))

    with raises(errno.EIO):
        bootstrap.target(2)
    with raises(errno.EINVAL):
        bootstrap.target(1)


def test_a_root_that_is_no_directory_is_refused() -> None:
    with pytest.raises(BootstrapError, match="not a directory"):
        ImageV5([InodeV5(b"/", REGULAR, parent=0)]).open()


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def image_with_digests(file_digest: bytes, link_digest: bytes) -> ImageV5:
    chunk_digest = digest(b"chunk")
    sub = InodeV5(b"s", DIRECTORY, child_index=4, child_count=1, digest=digest(link_digest))
    file = InodeV5(b"f", REGULAR, 4096, chunks=chunk_v5(digest=chunk_digest), digest=file_digest)
    link = InodeV5(b"l", SYMLINK, 6, parent=3, target=b"target", digest=link_digest)
    return ImageV5([root_v5(2, digest=digest(file.digest + sub.digest)), file, sub, link])


GOOD_FILE, GOOD_LINK = digest(digest(b"chunk")), digest(b"target")


def test_digests_that_match_are_served() -> None:
    image = image_with_digests(GOOD_FILE, GOOD_LINK)

    image.open().verify_tree()
    assert image.open(validate=True).find(b"/s/l") == 4


def test_a_wrong_digest_stops_its_directory_alone(caplog: pytest.LogCaptureFixture) -> None:
    bootstrap = image_with_digests(GOOD_FILE, digest(b"other")).open(validate=True)

    assert bootstrap.find(b"/s") == 3
    for _ in range(2):
        with raises(errno.EIO):
            bootstrap.find(b"/s/l")
        with raises(errno.EIO):
            bootstrap.entries(3)
    assert [record.getMessage().count("(b'l')") for record in caplog.records] == [1]
    with pytest.raises(BootstrapError, match="does not match its digest"):
        bootstrap.verify_directory(3)


def test_digests_are_not_looked_at_unless_asked() -> None:
    assert image_with_digests(digest(b"other"), GOOD_LINK).open().find(b"/f") == 2


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_the_digests_of_an_image_match(path: Path) -> None:
    BootstrapV5(Mapping.of_bytes(path.read_bytes())).verify_tree()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_bootstraps(5))
def test_any_damage_is_an_error_and_never_a_crash(data: bytes) -> None:
    try:
        bootstrap = BootstrapV5(Mapping.of_bytes(data))
    except BootstrapError:
        return
    exercise(bootstrap)


def test_a_chunk_that_goes_back_into_a_hole_is_an_error_and_not_zeros() -> None:
    chunks = chunk_v5(file_offset=8192) + chunk_v5(file_offset=0, index=1)
    bootstrap = one_file_v5(InodeV5(b"file", REGULAR, 12288, flags=HOLES, chunks=chunks))

    with pytest.raises(OSError, match="Input/output error"):
        list(bootstrap.chunk_spans(2))


@pytest.mark.parametrize("name", [b".", b".."])
def test_a_stored_dot_name_is_an_error_and_not_a_second_one(name: bytes) -> None:
    bootstrap = one_file_v5(InodeV5(name, REGULAR))

    with pytest.raises(OSError, match="Input/output error"):
        bootstrap.entries(1)
