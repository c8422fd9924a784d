"""Bootstraps made byte by byte, for what no builder writes: odd, broken and hostile ones.

Packed with `struct` from the format's description, independent of the compiled structs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor, Digester
from nydusd.rafs.read_v5 import BootstrapV5
from nydusd.rafs.read_v6 import BootstrapV6

REGULAR, DIRECTORY, SYMLINK, CHAR = 0o100644, 0o040755, 0o120777, 0o020600
NONE_SHA256_EXPLICIT = 0x1 | 0x8 | 0x10
PLAIN, INLINE, CHUNKS = 0, 2, 4


def align(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def padded(data: bytes, unit: int) -> bytes:
    return data.ljust(align(len(data), unit), b"\0")


# v6


@dataclass
class BlobV6:
    blob_id: bytes = b"b" * 64
    chunk_count: int = 1
    features: int = 0x40000001
    compressed_size: int = 4096
    uncompressed_size: int = 4096
    compressor: int = 0
    ci: tuple[int, int, int] = (0, 16, 16)
    index: int | None = None
    chunk_size: int | None = None

    def entry(self, index: int, chunk_size: int) -> bytes:
        return struct.pack(
            "<64sIIIIII QQII QQQ 32s32sQ8sI36x",
            self.blob_id,
            index if self.index is None else self.index,
            self.chunk_size or chunk_size,
            self.chunk_count,
            self.compressor,
            1,
            self.features,
            self.compressed_size,
            self.uncompressed_size,
            0,
            0,
            *self.ci,
            b"",
            b"",
            0,
            b"",
            0,
        )

    def slot(self) -> bytes:
        return struct.pack("<64sII56x", self.blob_id, 1, 128)


def inode_v6(
    mode: int,
    size: int,
    layout: int,
    content: int = 0,
    xattrs: bytes = b"",
    nlink: int = 1,
    compact: bool = False,
    xattr_count: int | None = None,
) -> bytes:
    count = (len(xattrs) - 12) // 4 + 1 if xattrs else 0
    count = count if xattr_count is None else xattr_count
    if compact:
        return struct.pack(
            "<HHHHIIIIHHI", layout << 1, count, mode, nlink, size, 0, content, 7, 3, 4, 0
        )
    return (
        struct.pack(
            "<HHHHQIIIIQII16x",
            *(layout << 1 | 1, count, mode, 0, size, content, 7, 1000, 1001, 5, 6, nlink),
        )
        + xattrs
    )


def xattr_v6(prefix: int, name: bytes, value: bytes) -> bytes:
    return padded(struct.pack("<BBH", len(name), prefix, len(value)) + name + value, 4)


XATTR_HEADER = bytes(12)


def dirents(entries: list[tuple[bytes, int, int]]) -> bytes:
    """One block of a directory: name, nid, type; in the order given."""
    offset = 12 * len(entries)
    head, names = b"", b""
    for name, nid, kind in entries:
        head += struct.pack("<QHBB", nid, offset + len(names), kind, 0)
        names += name
    return head + names


@dataclass
class ImageV6:
    """A v6 bootstrap in the making; the root's nid is 128."""

    blobs: list[BlobV6] = field(default_factory=lambda: [BlobV6()])
    flags: int = NONE_SHA256_EXPLICIT
    chunk_size: int = 0x1000
    prefetch: list[int] = field(default_factory=list)
    block_bits: int = 12
    meta: bytearray = field(default_factory=lambda: bytearray(8192))
    superblock: dict[str, int] = field(default_factory=dict)  # fields that differ from the rule
    extended: dict[str, int] = field(default_factory=dict)

    @property
    def meta_offset(self) -> int:
        tables = align(1408 + 128 * len(self.blobs), 4096) + 256 * len(self.blobs)
        return align(tables + 4 * len(self.prefetch), 4096)

    def add(self, data: bytes, unit: int = 32) -> int:
        """Append *data*; its nid."""
        self.meta.extend(bytes(-len(self.meta) % unit))
        offset = len(self.meta)
        self.meta.extend(data)
        return offset // 32

    def add_block(self, data: bytes) -> int:
        """Append *data* on a block boundary; its block address in the file."""
        return (self.add(data, 1 << self.block_bits) * 32 + self.meta_offset) >> self.block_bits

    def set_root(self, inode: bytes) -> None:
        self.meta[4096 : 4096 + len(inode)] = inode

    def root_directory(self, entries: list[tuple[bytes, int, int]]) -> None:
        """Make a root of one block with *entries*, in the order given."""
        block = dirents(entries)
        self.set_root(inode_v6(DIRECTORY, len(block), PLAIN, self.add_block(block)))

    def build(self) -> bytes:
        size = align(self.meta_offset + len(self.meta), 4096)
        blob_table = align(1408 + 128 * len(self.blobs), 4096)
        prefetch_offset = blob_table + 256 * len(self.blobs)
        first = {
            "magic": 0xE0F5E1E2,
            "checksum": 0,
            "compat": 0x40000000,
            "bits": self.block_bits,
            "slots": 0,
            "root": 128,
            "inos": 2,
            "time": 0,
            "nsec": 0,
            "blocks": 1 if self.blobs else 0,
            "meta": self.meta_offset >> self.block_bits,
            "xattr": 0,
            "incompat": 0xC,
            "union": 0,
            "devices": len(self.blobs),
            "slotoff": 11,
        } | self.superblock
        second = {
            "flags": self.flags,
            "blobs": blob_table,
            "blobs_size": 256 * len(self.blobs),
            "chunk_size": self.chunk_size,
            "chunks": 0,
            "chunks_size": 0,
            "prefetch": prefetch_offset if self.prefetch else 0,
            "prefetch_size": 4 * len(self.prefetch),
        } | self.extended
        image = bytearray(size)
        struct.pack_into("<IIIBBHQQIIII32xIHHH38x", image, 1024, *first.values())
        struct.pack_into("<QQIIQQQI204x", image, 1152, *second.values())
        for index, blob in enumerate(self.blobs):
            slot = 1408 + 128 * index
            image[slot : slot + 128] = blob.slot()
            entry = blob_table + 256 * index
            image[entry : entry + 256] = blob.entry(index, self.chunk_size)
        struct.pack_into(f"<{len(self.prefetch)}I", image, prefetch_offset, *self.prefetch)
        image[self.meta_offset : self.meta_offset + len(self.meta)] = self.meta
        return bytes(image)

    def open(self) -> BootstrapV6:
        return BootstrapV6(Mapping.of_bytes(self.build()))


def chunk_index(blob_index: int, chunk: int, block: int) -> bytes:
    return struct.pack("<HHI", chunk & 0xFFFF, blob_index + 1 | chunk >> 16 << 8, block)


def one_file_v6(inode: bytes, **image: object) -> BootstrapV6:
    """An image whose root holds `file`, which is *inode* (with what stands behind it)."""
    made = ImageV6(**image)  # type: ignore[arg-type]
    nid = made.add(inode)
    made.root_directory([(b".", 128, 2), (b"..", 128, 2), (b"file", nid, 1)])
    return made.open()


# v5


def chunk_v5(
    file_offset: int = 0,
    size: int = 4096,
    blob_index: int = 0,
    index: int = 0,
    offset: int = 0,
    flags: int = 0,
    compressed_size: int | None = None,
    digest: bytes = b"",
) -> bytes:
    stored = size if compressed_size is None else compressed_size
    return struct.pack(
        "<32sIIIIQQQII",
        *(digest, blob_index, flags, stored, size, offset, offset, file_offset, index, 0),
    )


@dataclass
class InodeV5:
    name: bytes
    mode: int
    size: int = 0
    parent: int = 1
    ino: int | None = None
    flags: int = 0
    nlink: int = 1
    child_index: int = 0
    child_count: int = 0
    target: bytes = b""
    xattrs: bytes | None = None  # the pairs
    chunks: bytes = b""
    rdev: int = 0
    digest: bytes = b""

    def record(self, index: int) -> bytes:
        flags = self.flags | (4 if self.xattrs is not None else 0)
        packed = struct.pack(
            "<32sQQIIIIQQQIIIHHIIq8x",
            self.digest,
            self.parent,
            index if self.ino is None else self.ino,
            *(1000, 1001, 0, self.mode, self.size, 9, flags, self.nlink, self.child_index),
            len(self.chunks) // 80 or self.child_count,
            *(len(self.name), len(self.target), self.rdev, 6, 5),
        )
        packed += padded(self.name, 8) + padded(self.target, 8)
        if self.xattrs is not None:
            packed += struct.pack("<Q", len(self.xattrs)) + padded(self.xattrs, 8)
        return packed + self.chunks


def xattr_v5(name: bytes, value: bytes) -> bytes:
    pair = name + b"\0" + value
    return struct.pack("<I", len(pair)) + pair


@dataclass
class ImageV5:
    """A v5 bootstrap in the making: inodes in the order of their indexes, the root first."""

    inodes: list[InodeV5]
    flags: int = NONE_SHA256_EXPLICIT
    chunk_size: int = 0x1000
    blob_table: bytes = struct.pack("<II", 0, 0) + b"b" * 64
    extended: bytes = struct.pack("<IIQQ40x", 8, 0x40000000, 1 << 20, 1 << 20)
    prefetch: list[int] = field(default_factory=list)
    superblock: dict[str, int] = field(default_factory=dict)  # fields that differ from the rule

    def build(self) -> bytes:
        inode_table = 8192
        prefetch_table = inode_table + align(4 * len(self.inodes), 8)
        blob_table = prefetch_table + align(4 * len(self.prefetch), 8)
        extended = blob_table + align(len(self.blob_table), 8)
        position = extended + len(self.extended)
        records, offsets = [], []
        for number, inode in enumerate(self.inodes, 1):
            offsets.append(position >> 3)
            records.append(inode.record(number))
            position += len(records[-1])
        fields = {
            "magic": 0x52414653,
            "version": 0x500,
            "size": 8192,
            "chunk_size": self.chunk_size,
            "flags": self.flags,
            "inodes": len(self.inodes),
            "inode_table": inode_table,
            "prefetch_table": prefetch_table,
            "blob_table": blob_table,
            "entries": len(self.inodes),
            "prefetch_entries": len(self.prefetch),
            "blob_table_size": align(len(self.blob_table), 8),
            "extended_entries": len(self.extended) // 64,
            "extended": extended if self.extended else 0,
        } | self.superblock
        head = struct.pack("<IIIIQQQQQIIIIQ", *fields.values()).ljust(8192, b"\0")
        return (
            head
            + padded(struct.pack(f"<{len(offsets)}I", *offsets), 8)
            + padded(struct.pack(f"<{len(self.prefetch)}I", *self.prefetch), 8)
            + padded(self.blob_table, 8)
            + self.extended
            + b"".join(records)
        )

    def open(self, validate: bool = False) -> BootstrapV5:
        return BootstrapV5(Mapping.of_bytes(self.build()), validate)


def root_v5(children: int, **other: object) -> InodeV5:
    return InodeV5(b"/", DIRECTORY, 4096, parent=0, child_index=2, child_count=children, **other)  # type: ignore[arg-type]


def one_file_v5(inode: InodeV5, **image: object) -> BootstrapV5:
    """An image whose root holds *inode* alone, as number 2."""
    return ImageV5([root_v5(1), inode], **image).open()  # type: ignore[arg-type]


# blobs

BLOB = BlobInfo(
    blob_index=0,
    blob_id="stored",
    meta_blob_id="meta",
    chunk_size=0x100000,
    chunk_count=3,
    compressor=Compressor.ZSTD,
    digester=Digester.BLAKE3,
    features=BlobFeature.ALIGNED | BlobFeature.CAP_TAR_TOC,
    compressed_size=5000,
    data_size=4000,
    uncompressed_size=9000,
    ci_compressed_size=48,
)


def tar_header(name: bytes, size: bytes, magic: bytes = b"ustar  \0") -> bytes:
    block = bytearray(512)
    block[: len(name)] = name
    block[124 : 124 + len(size)] = size
    block[136:147] = b"0" * 11
    block[148:156] = b" " * 8
    block[156:157] = b"0"
    block[257 : 257 + len(magic)] = magic
    block[148:156] = b"%07o\0" % sum(block)
    return bytes(block)
