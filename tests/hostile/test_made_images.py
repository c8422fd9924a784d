"""Hostile images that no golden one can be bent into: very deep, very wide, bombs, wrong counts."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from nydusd.base.errors import NydusError
from nydusd.build.check import check_image
from nydusd.build.check_tree import DEPTH_MAX
from nydusd.codec.compression import compress
from nydusd.rafs.blobs import Compressor
from nydusd.rafs.load import load_bootstrap
from tests.rafs.made import (
    CHUNKS,
    DIRECTORY,
    INLINE,
    PLAIN,
    REGULAR,
    ImageV5,
    ImageV6,
    InodeV5,
    chunk_v5,
    dirents,
    inode_v6,
    root_v5,
    xattr_v5,
)
from tests.system.control import ask
from tests.system.daemon import v1_config

EXPLICIT_SHA256_ZSTD = 0x80 | 0x8 | 0x10
DEPTH = 10_000
BLOB = "b" * 64


@dataclass(frozen=True)
class Made:
    """One image: what the checker says, and what happens to `/file`."""

    make: Callable[[], bytes]
    says: str
    refused: bool = False
    file: bytes | OSError | None = None  # its bytes; an error; None: there is none
    blob: bytes = b""
    lists: bool = True  # whether the root can be listed


def deep_v6(depth: int = DEPTH) -> bytes:
    image = ImageV6(blobs=[])
    size = len(dirents([(b".", 0, 2), (b"..", 0, 2), (b"d", 0, 2)]))
    length = -(-(64 + size) // 32)
    first = len(image.meta) // 32
    parent = 128
    for level in range(depth):
        nid = first + length * level
        names = [(b".", nid, 2), (b"..", parent, 2)]
        if level + 1 < depth:
            names.append((b"d", nid + length, 2))
        block = dirents(names)
        image.add(inode_v6(DIRECTORY, len(block), INLINE) + block.ljust(size, b"\0"))
        parent = nid
    image.root_directory([(b".", 128, 2), (b"..", 128, 2), (b"d", first, 2)])
    return image.build()


def deep_v5(depth: int = DEPTH) -> bytes:
    inodes = []
    digest = hashlib.sha256(b"").digest()
    for level in reversed(range(depth)):
        last = level + 1 == depth
        inodes.append(
            InodeV5(
                b"d",
                DIRECTORY,
                4096,
                parent=level + 1,
                child_index=0 if last else level + 3,
                child_count=0 if last else 1,
                digest=digest,
            )
        )
        digest = hashlib.sha256(digest).digest()
    return ImageV5([root_v5(1, digest=digest), *reversed(inodes)]).build()


def file_v5(inode: InodeV5, **settings: object) -> bytes:
    return ImageV5([root_v5(1), inode], **settings).build()  # type: ignore[arg-type]


BOMB = compress(Compressor.ZSTD, bytes(16 << 20))
ZEROS = bytes(4096)
ZEROS_DIGEST = hashlib.sha256(ZEROS).digest()


def bomb(plain_size: int, chunk_size: int) -> bytes:
    """A file of one chunk, whose stored bytes become 16 MiB and are told to become *plain_size*."""
    digest = hashlib.sha256(bytes(plain_size)).digest()
    chunk = chunk_v5(size=plain_size, flags=1, compressed_size=len(BOMB), digest=digest)
    return file_v5(
        InodeV5(b"file", REGULAR, plain_size, chunks=chunk),
        flags=EXPLICIT_SHA256_ZSTD,
        chunk_size=chunk_size,
        extended=struct.pack("<IIQQ40x", 8, 0x40000000, 16 << 20, len(BOMB)),
    )


def many_blobs() -> bytes:
    row = struct.pack("<II", 0, 0)
    table = b"\0".join(row + b"%064x" % number for number in range(1 << 16))
    return file_v5(InodeV5(b"file", REGULAR), blob_table=table, extended=b"")


def too_many_blobs() -> bytes:
    row = struct.pack("<II", 0, 0)
    table = b"\0".join(row + b"%064x" % number for number in range((1 << 16) + 1))
    return file_v5(InodeV5(b"file", REGULAR), blob_table=table, extended=b"")


def two_chunks(first: bytes, second: bytes, size: int, flags: int = 0) -> bytes:
    return file_v5(InodeV5(b"file", REGULAR, size, flags=flags, chunks=first + second))


def same_inodes_v6() -> bytes:
    """65,536 names of one inode."""
    image = ImageV6(blobs=[], superblock={"inos": 65537})
    nid = image.add(inode_v6(REGULAR, 0, CHUNKS))
    blocks, names = [], [(b".", 128, 2), (b"..", 128, 2)]
    for number in range(1 << 16):
        names.append((b"%06x" % number, nid, 1))
        if len(names) == 200:
            blocks.append(dirents(names).ljust(4096, b"\0"))
            names = []
    blocks.append(dirents(names))
    data = b"".join(blocks)
    image.set_root(inode_v6(DIRECTORY, len(data), PLAIN, image.add_block(data)))
    return image.build()


def one_file_v6(
    inode: bytes, names: list[tuple[bytes, int]] | None = None, **changes: int
) -> bytes:
    """A root with `file`, or with *names*, all of them for *inode*."""
    image = ImageV6(superblock={"inos": 2} | changes)
    nid = image.add(inode)
    found = names or [(b"file", 1)]
    image.root_directory([(b".", 128, 2), (b"..", 128, 2), *((n, nid, k) for n, k in found)])
    return image.build()


EIO = OSError(5, "Input/output error")
IMAGES = {
    "v6: 10,000 levels": Made(deep_v6, "levels deep"),
    "v5: 10,000 levels": Made(deep_v5, "levels deep"),
    "v5: a chunk that becomes 4096 times what is told": Made(
        lambda: bomb(4096, 0x1000), "does not match its digest", file=EIO, blob=BOMB
    ),
    "v5: a chunk that becomes ten thousand times its size": Made(
        lambda: bomb(16 << 20, 16 << 20), "match its digest", file=bytes(16 << 20), blob=BOMB
    ),
    "v5: 65,536 blobs": Made(many_blobs, "match its digest", refused=True),
    "v5: 65,537 blobs": Made(too_many_blobs, "more than 65536 blobs", refused=True),
    "v5: an inode table out of the file": Made(
        lambda: file_v5(InodeV5(b"file", REGULAR), superblock={"inode_table": 1 << 20}),
        "inode table ends",
        refused=True,
    ),
    "v5: chunks that go back in a file with holes": Made(
        lambda: two_chunks(
            chunk_v5(file_offset=8192, digest=ZEROS_DIGEST),
            chunk_v5(file_offset=0, index=1, digest=ZEROS_DIGEST),
            12288,
            flags=8,
        ),
        "the one before ends at 12288",  # a read of the first bytes alone meets a hole
    ),
    "v5: chunks over each other in a file with holes": Made(
        lambda: two_chunks(
            chunk_v5(file_offset=0, digest=ZEROS_DIGEST),
            chunk_v5(file_offset=2048, index=1, digest=ZEROS_DIGEST),
            6144,
            flags=8,
        ),
        "the one before ends at 4096",
        file=EIO,
    ),
    "v5: two chunks on the same stored bytes": Made(
        lambda: two_chunks(
            chunk_v5(file_offset=0, digest=ZEROS_DIGEST),
            chunk_v5(file_offset=4096, index=1, digest=ZEROS_DIGEST),
            8192,
        ),
        "lies on chunk",
        file=bytes(8192),
        blob=ZEROS,
    ),
    "v5: a chunk with two places": Made(
        lambda: two_chunks(
            chunk_v5(file_offset=0, digest=ZEROS_DIGEST),
            chunk_v5(file_offset=4096, offset=4096, digest=ZEROS_DIGEST),
            8192,
        ),
        "has two places",
        file=bytes(8192),
        blob=bytes(8192),
    ),
    "v5: a hole of 2^62 bytes": Made(
        lambda: file_v5(InodeV5(b"file", REGULAR, 1 << 62, flags=8)), "match its digest"
    ),
    "v5: an attribute of a megabyte": Made(
        lambda: file_v5(InodeV5(b"file", REGULAR, xattrs=xattr_v5(b"user.a", bytes(1 << 20)))),
        "attribute user.a has 1048576 bytes",
        file=b"",
    ),
    "v5: attributes whose names have 70 KiB": Made(
        lambda: file_v5(
            InodeV5(
                b"file",
                REGULAR,
                xattrs=b"".join(xattr_v5(b"user." + b"%0240d" % n, b"") for n in range(290)),
            )
        ),
        "names of its attributes have more than",
        file=b"",
    ),
    "v5: a name `..`": Made(
        lambda: file_v5(InodeV5(b"..", REGULAR)), "which every directory has", lists=False
    ),
    "v5: a name of 256 bytes": Made(
        lambda: file_v5(InodeV5(b"x" * 256, REGULAR)), "over 255 bytes", lists=False
    ),
    "v6: 65,536 names of one inode": Made(same_inodes_v6, ""),
    "v6: a name twice for one inode": Made(
        lambda: one_file_v6(inode_v6(REGULAR, 0, CHUNKS), [(b"file", 1), (b"file", 1)]),
        "stands twice",
        file=b"",
    ),
    "v6: a count of 2^32 chunks": Made(
        lambda: one_file_v6(inode_v6(REGULAR, 1 << 44, CHUNKS)), "chunks, more than the file"
    ),
    "v6: a compact inode with a file type of 0": Made(
        lambda: one_file_v6(inode_v6(0o644, 0, CHUNKS, compact=True)), "cannot be read", file=EIO
    ),
}


def image_in(folder, made):
    path = folder / "bootstrap"
    path.write_bytes(made.make())
    return path


@pytest.mark.parametrize("name", IMAGES)
def test_the_checker_says_what_is_wrong(tmp_path, name):
    findings = check_image(image_in(tmp_path, IMAGES[name])).findings

    if IMAGES[name].says:
        assert any(IMAGES[name].says in line for line in findings), findings[:5]
    else:
        assert not findings


def test_what_lies_as_deep_as_can_be_named_is_checked(tmp_path):
    for make in (deep_v5, deep_v6):
        (tmp_path / "bootstrap").write_bytes(make(DEPTH_MAX))

        assert not any("deep" in line for line in check_image(tmp_path / "bootstrap").findings)


def descend(root: str) -> int:
    """How many levels of `d` are below *root*, one at a time."""
    levels = 0
    here = os.open(root, os.O_RDONLY)
    while True:
        try:
            below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            return levels
        finally:
            os.close(here)
        here = below
        levels += 1


@contextmanager
def mounted(daemon, sock, folder, made):
    blobs, cache = folder / "blobs", folder / "cache"
    blobs.mkdir()
    cache.mkdir()
    (blobs / BLOB).write_bytes(made.blob)
    config = json.dumps(v1_config(blobs, cache, validate=True))
    body = {"fs_type": "rafs", "source": str(image_in(folder, made)), "config": config}
    reply = ask(sock, "POST", "/api/v1/mount", body, mountpoint="/x")
    try:
        yield reply
    finally:
        if reply.status == 204:
            assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/x").status == 204


@pytest.mark.root
@pytest.mark.fuse
@pytest.mark.parametrize("name", IMAGES)
def test_a_mount_refuses_it_or_shows_right_bytes_or_an_error(shared, tmp_path, name):
    daemon, sock = shared
    made = IMAGES[name]
    with mounted(daemon, sock, tmp_path, made) as reply:
        if made.refused:
            assert reply.status != 204
            assert reply.message
            return
        assert reply.status == 204, reply
        file = daemon.mountpoint / "x" / "file"
        if "levels" in name:
            assert descend(str(daemon.mountpoint / "x")) == DEPTH
        elif isinstance(made.file, OSError):
            with pytest.raises(OSError, match=made.file.strerror):
                file.read_bytes()
        elif made.file is not None:
            assert file.read_bytes() == made.file
        elif made.lists:
            list((daemon.mountpoint / "x").iterdir())
        else:
            with pytest.raises(OSError, match="Input/output error"):
                list((daemon.mountpoint / "x").iterdir())
    assert daemon.process.poll() is None


MILLION = 1_000_000
SPARSE_BYTES = 160 << 20


def million_v5(path):
    """A table of a million inodes, and room for them; all but the root are zeros."""
    raw = bytearray(ImageV5([root_v5(0)]).build())
    (root,) = struct.unpack_from("<I", raw, 8192)
    struct.pack_into("<QQ", raw, 24, MILLION, 1 << 20)
    struct.pack_into("<I", raw, 56, MILLION)
    with path.open("wb") as file:
        file.write(raw)
        file.seek(1 << 20)
        file.write(struct.pack("<I", root))
        file.truncate(SPARSE_BYTES)


def million_v6(path):
    image = ImageV6(blobs=[], superblock={"inos": MILLION})
    image.root_directory([(b".", 128, 2), (b"..", 128, 2)])
    with path.open("wb") as file:
        file.write(image.build())
        file.truncate(SPARSE_BYTES)


@pytest.mark.parametrize("make", [million_v5, million_v6])
def test_opening_a_million_inodes_reads_the_tables_alone(tmp_path, make):
    path = tmp_path / "bootstrap"
    make(path)

    bootstrap = load_bootstrap(path)

    assert bootstrap.inodes_count == MILLION
    assert resident_bytes(path) <= 2 << 20  # pages come with their neighbours


def resident_bytes(path) -> int:
    """How much of the mapping of *path* this process has touched, with what came along."""
    regions = Path("/proc/self/smaps").read_text(errors="replace").split(f"{path}\n")
    return int(regions[1].split("Rss:")[1].split()[0]) << 10


def test_a_refused_image_is_refused_by_the_loader_too(tmp_path):
    for name, made in IMAGES.items():
        if made.refused and "match" not in made.says:
            with pytest.raises(NydusError):
                load_bootstrap(image_in(tmp_path, made))
            assert name
