import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from nydusd.base.errors import BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.read_v6 import BootstrapV6
from tests.rafs.decode import check_against_decoder
from tests.rafs.exercise import damaged_bootstraps, exercise, golden_bootstraps
from tests.rafs.made import (
    CHAR,
    CHUNKS,
    DIRECTORY,
    INLINE,
    PLAIN,
    REGULAR,
    SYMLINK,
    XATTR_HEADER,
    BlobV6,
    ImageV6,
    chunk_index,
    dirents,
    inode_v6,
    one_file_v6,
    xattr_v6,
)

GOLDEN = golden_bootstraps(6)
HOLE = 2**60


def file_with(chunks: bytes, size: int, **other: object) -> bytes:
    return inode_v6(REGULAR, size, CHUNKS, 0x20, **other) + chunks  # type: ignore[arg-type]


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.parent.name)
def test_an_image_reads_as_an_independent_decoder_reads_it(path: Path) -> None:
    data = path.read_bytes()
    bootstrap = BootstrapV6(Mapping.of_bytes(data))

    check_against_decoder(bootstrap, data)
    for entry in bootstrap.walk():
        found = bootstrap.stat(entry.ino)
        assert found.blocks == -(-found.size // 512)


def test_an_opened_image_tells_what_its_superblock_says() -> None:
    made = ImageV6(prefetch=[128, 129], superblock={"inos": 77})
    made.root_directory([(b".", 128, 2), (b"..", 128, 2)])

    bootstrap = made.open()

    assert (bootstrap.version, bootstrap.root_ino, bootstrap.inodes_count) == (6, 128, 77)
    assert (bootstrap.chunk_size, bootstrap.prefetch_inos) == (0x1000, [128, 129])
    assert bootstrap.blobs[0].blob_id == "b" * 64


def test_opening_reads_the_root_and_no_inode_below_it() -> None:
    made = ImageV6(superblock={"inos": 2**40})
    made.root_directory([(b"x", 2**30, 1)])
    made.meta.extend(b"\xff" * 65536)

    assert made.open().inodes_count == 2**40


def test_names_are_found_over_many_blocks() -> None:
    made = ImageV6(blobs=[])
    names = [b"name-%04d" % number for number in range(700)]
    blocks = [names[at : at + 100] for at in range(0, 700, 100)]
    first = made.add_block(b"")
    for block in blocks:
        made.add(dirents([(name, 128, 2) for name in block]), 4096)
    size = 6 * 4096 + len(dirents([(name, 128, 2) for name in blocks[-1]]))
    made.set_root(inode_v6(DIRECTORY, size, PLAIN, first))

    bootstrap = made.open()

    assert [entry.name for entry in bootstrap.entries(128)] == names
    for name in names:
        assert bootstrap.child(128, name) == 128
    for name in (b"", b"a", b"name-0099a", b"name-0100\0", b"zzz", b"n" * 255):
        with raises(errno.ENOENT):
            bootstrap.child(128, name)


def test_an_empty_directory_has_no_entries() -> None:
    made = ImageV6(blobs=[])
    made.set_root(inode_v6(DIRECTORY, 0, PLAIN))
    bootstrap = made.open()

    assert bootstrap.entries(128) == []
    with raises(errno.ENOENT):
        bootstrap.child(128, b"a")


def test_the_last_name_of_a_block_may_be_padded_with_zeros() -> None:
    made = ImageV6(blobs=[])
    block = dirents([(b"a", 128, 2), (b"b", 128, 2)]).ljust(4096, b"\0")
    made.set_root(inode_v6(DIRECTORY, 4096, PLAIN, made.add_block(block)))

    assert [entry.name for entry in made.open().entries(128)] == [b"a", b"b"]


def test_a_compact_inode_is_read() -> None:
    bootstrap = one_file_v6(
        inode_v6(REGULAR, 10, CHUNKS, 0x20, compact=True, nlink=3) + chunk_index(0, 0, 0)
    )

    found = bootstrap.stat(bootstrap.find(b"/file"))

    assert (found.size, found.nlink, found.uid, found.gid, found.mtime) == (10, 3, 3, 4, 0)
    assert [span.length for span in bootstrap.chunk_spans(found.ino)] == [10]


def test_a_compact_device_keeps_its_number() -> None:
    bootstrap = one_file_v6(inode_v6(CHAR, 0, PLAIN, 0x103, compact=True))

    assert bootstrap.stat(bootstrap.find(b"/file")).rdev == 0x103


def test_a_long_link_target_is_read_from_its_blocks_and_its_tail() -> None:
    made = ImageV6(blobs=[])
    target = bytes(range(1, 256)) * 17
    nid = made.add(bytes(64) + target[4096:])
    block = made.add_block(target[:4096])
    made.meta[nid * 32 : nid * 32 + 64] = inode_v6(SYMLINK, len(target), INLINE, block)
    made.root_directory([(b"link", nid, 7)])
    bootstrap = made.open()

    assert bootstrap.target(bootstrap.find(b"/link")) == target


def test_a_target_is_asked_of_links_only() -> None:
    bootstrap = one_file_v6(file_with(b"", 0))

    with raises(errno.EINVAL):
        bootstrap.target(bootstrap.find(b"/file"))
    with raises(errno.EINVAL):
        bootstrap.target(bootstrap.root_ino)


def test_owners_are_the_daemons_when_the_image_does_not_say() -> None:
    made = ImageV6(flags=0x9)
    made.root_directory([(b".", 128, 2)])

    found = made.open().stat(128)

    assert (found.uid, found.gid) == (os.geteuid(), os.getegid())


def test_attributes_are_found_by_their_whole_name() -> None:
    area = (
        XATTR_HEADER + xattr_v6(1, b"a", b"1") + xattr_v6(2, b"", b"acl") + xattr_v6(6, b"s", b"")
    )
    bootstrap = one_file_v6(file_with(b"", 0, xattrs=area))
    ino = bootstrap.find(b"/file")

    assert bootstrap.xattrs(ino) == {
        b"user.a": b"1",
        b"system.posix_acl_access": b"acl",
        b"security.s": b"",
    }
    assert bootstrap.xattr_value(ino, b"system.posix_acl_access") == b"acl"
    for name in (b"user.b", b"user.", b"a", b"trusted.a"):
        with raises(errno.ENODATA):
            bootstrap.xattr_value(ino, name)


@pytest.mark.parametrize(
    "area",
    [
        XATTR_HEADER + struct.pack("<BBH", 4, 1, 100),
        XATTR_HEADER + xattr_v6(9, b"a", b"1"),
        b"\0\0\0\0\1" + bytes(7) + xattr_v6(1, b"a", b"1"),
        XATTR_HEADER + xattr_v6(1, b"a\0b", b"1"),
    ],
    ids=["beyond its area", "unknown prefix", "shared", "NUL in a name"],
)
def test_a_broken_attribute_is_an_io_error(area: bytes) -> None:
    bootstrap = one_file_v6(file_with(b"", 0, xattrs=area))
    ino = bootstrap.find(b"/file")

    with raises(errno.EIO):
        bootstrap.xattrs(ino)
    with raises(errno.EIO):
        bootstrap.xattr_value(ino, b"user.zz")


def test_an_attribute_area_beyond_the_file_is_an_io_error() -> None:
    bootstrap = one_file_v6(file_with(b"", 0, xattr_count=65535))

    with raises(errno.EIO):
        bootstrap.stat(bootstrap.find(b"/file"))


def test_spans_are_cut_to_what_is_asked_and_to_the_file() -> None:
    indexes = chunk_index(0, 0x10002, 2) + chunk_index(1, 3, 7)
    blobs = [
        BlobV6(chunk_count=0x10003, ci=(0, 16 * 0x10003, 16 * 0x10003), uncompressed_size=1 << 20),
        BlobV6(b"c" * 64, 4, ci=(0, 64, 64), uncompressed_size=1 << 20),
    ]
    bootstrap = one_file_v6(file_with(indexes, 5000), blobs=blobs)
    ino = bootstrap.find(b"/file")

    spans = list(bootstrap.chunk_spans(ino, 4000, 10**9))

    assert [span[:5] for span in spans] == [(0, 0, 0x10002, 4000, 96), (0, 1, 3, 0, 904)]
    assert [span.uncompressed_offset for span in spans] == [2 * 4096, 7 * 4096]
    assert list(bootstrap.chunk_spans(ino, 5000)) == []
    assert [span.length for span in bootstrap.chunk_spans(ino, 100, 1)] == [1]
    with raises(errno.EISDIR):
        list(bootstrap.chunk_spans(bootstrap.root_ino))


def test_a_tarfs_chunk_lies_plain_in_its_tar() -> None:
    blob = BlobV6(features=0x40000040, chunk_count=1, ci=(0, 0, 0))
    made = ImageV6(blobs=[blob], flags=0x219, block_bits=9)
    nid = made.add(file_with(chunk_index(0, 5, 3), 700))
    made.root_directory([(b"file", nid, 1)])
    bootstrap = made.open()

    (span,) = bootstrap.chunk_spans(bootstrap.find(b"/file"))

    assert (span.flags, span.uncompressed_offset, span.length) == (4, 3 * 512, 700)


@pytest.mark.parametrize(
    "chunks",
    [
        chunk_index(-1, 0, 0),
        chunk_index(1, 0, 0),
        chunk_index(0, 1, 0),
        chunk_index(0, 0, 1),
        chunk_index(0, 0, 0xFFFFFFFF),
    ],
    ids=["no device", "no such blob", "no such chunk", "behind the blob", "hole"],
)
def test_a_chunk_that_cannot_be_is_an_io_error(chunks: bytes) -> None:
    bootstrap = one_file_v6(file_with(chunks, 100))

    with raises(errno.EIO):
        list(bootstrap.chunk_spans(bootstrap.find(b"/file")))


def test_a_size_without_chunks_is_an_io_error_at_once() -> None:
    bootstrap = one_file_v6(file_with(chunk_index(0, 0, 0), HOLE))
    ino = bootstrap.find(b"/file")

    assert bootstrap.stat(ino).size == HOLE
    with raises(errno.EIO):
        list(bootstrap.chunk_spans(ino, HOLE - 10))
    with raises(errno.EIO):
        list(bootstrap.chunk_spans(ino))


@pytest.mark.parametrize("kind", [DIRECTORY, SYMLINK])
def test_a_directory_or_link_larger_than_the_file_is_an_io_error(kind: int) -> None:
    bootstrap = one_file_v6(inode_v6(kind, HOLE, PLAIN, 0))
    ino = bootstrap.find(b"/file")

    for question in (bootstrap.stat, bootstrap.entries, bootstrap.target):
        with raises(errno.EIO):
            question(ino)


@pytest.mark.parametrize(
    ("mode", "layout"), [(REGULAR, PLAIN), (DIRECTORY, CHUNKS), (SYMLINK, 1), (0o70644, PLAIN)]
)
def test_a_layout_that_its_type_does_not_have_is_an_io_error(mode: int, layout: int) -> None:
    bootstrap = one_file_v6(inode_v6(mode & 0xFFFF, 0, layout))

    with raises(errno.EIO):
        bootstrap.stat(bootstrap.find(b"/file"))


@pytest.mark.parametrize(
    "block",
    [
        dirents([(b"a/b", 128, 2)]),
        dirents([(b"a\0b", 128, 2), (b"c", 128, 2)]),
        dirents([(b"", 128, 2)]),
        dirents([(b"n" * 256, 128, 2)]),
        struct.pack("<QHBB", 128, 5000, 2, 0) + b"a",
        struct.pack("<QHBB", 128, 7, 2, 0) + b"a",
        struct.pack("<QHBB", 128, 0, 2, 0) + b"a",
        dirents([(b"a", 128, 2), (b"b", 128, 2)])[:13],
        struct.pack("<QHBBQHBB", 128, 24, 2, 0, 128, 23, 2, 0) + b"ab",
        b"short",
    ],
    ids=[
        *("slash", "NUL", "empty", "long", "names outside", "no whole entry", "no entry"),
        *("cut", "backwards", "short"),
    ],
)
def test_a_broken_directory_is_an_io_error(block: bytes) -> None:
    made = ImageV6(blobs=[])
    made.set_root(inode_v6(DIRECTORY, len(block), PLAIN, made.add_block(block)))
    bootstrap = made.open()

    with raises(errno.EIO):
        bootstrap.entries(128)
    with raises(errno.EIO):
        bootstrap.child(128, b"a")


@pytest.mark.parametrize("nid", [2**63, 2**59, (3 * 4096 - 32) // 32 + 1])
def test_a_name_for_no_inode_is_an_io_error(nid: int) -> None:
    made = ImageV6(blobs=[])
    made.root_directory([(b"a", nid, 2)])
    bootstrap = made.open()

    with raises(errno.EIO):
        bootstrap.child(128, b"a")
    with raises(errno.EIO):
        bootstrap.entries(128)


def test_a_number_without_an_inode_is_not_found() -> None:
    bootstrap = one_file_v6(file_with(b"", 0))

    for ino in (2**59, 2**64 - 1):
        with raises(errno.ENOENT):
            bootstrap.stat(ino)


def test_a_file_that_is_cut_under_the_mapping_is_an_io_error(tmp_path: Path) -> None:
    path = tmp_path / "bootstrap"
    path.write_bytes(GOLDEN[0].read_bytes())
    fd = os.open(path, os.O_RDONLY)
    bootstrap = BootstrapV6(Mapping(fd))
    os.close(fd)
    os.truncate(path, 4096)

    with raises(errno.EIO):
        bootstrap.entries(bootstrap.root_ino)


def test_a_root_that_is_no_directory_is_refused() -> None:
    made = ImageV6(blobs=[])
    made.set_root(inode_v6(REGULAR, 0, CHUNKS))

    with pytest.raises(BootstrapError, match="not a directory"):
        made.open()


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(damaged_bootstraps(6))
def test_any_damage_is_an_error_and_never_a_crash(data: bytes) -> None:
    try:
        bootstrap = BootstrapV6(Mapping.of_bytes(data))
    except BootstrapError:
        return
    exercise(bootstrap)
