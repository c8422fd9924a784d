"""Where the fields and records of a good image stand, so that a mutation can hit what matters.

Layouts are written down from the format's description, apart from the program's own structs. A map
is made of a seed, which is a good image; a mutant is never parsed here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

Layout = list[tuple[str, int, int]]


class Field(NamedTuple):
    """One number or name of a file."""

    name: str
    offset: int
    size: int


@dataclass
class Map:
    """Fields of a file, and its tables as runs of equal records."""

    fields: list[Field] = field(default_factory=list)
    records: list[tuple[int, int, int]] = field(default_factory=list)  # offset, size, count
    places: list[int] = field(default_factory=list)  # offsets that mean something

    def add(self, layout: Layout, base: int, prefix: str) -> None:
        """One record of *layout* at *base*."""
        self.places.append(base)
        self.fields += [
            Field(f"{prefix}.{name}", base + offset, size) for name, offset, size in layout
        ]

    def table(self, layout: Layout, base: int, size: int, count: int, prefix: str) -> None:
        """*count* records of *size* bytes."""
        if count:
            self.records.append((base, size, count))
        for number in spread(count):
            self.add(layout, base + number * size, f"{prefix}[{number}]")


def layout(text: str) -> Layout:
    """`name:bytes` words in a row as (name, offset, size); names with `_` first are left out."""
    offset = 0
    found = []
    for word in text.split():
        name, _, size = word.partition(":")
        if not name.startswith("_"):
            found.append((name, offset, int(size)))
        offset += int(size)
    return found


def spread(count: int, most: int = 24) -> Iterable[int]:
    """Up to *most* numbers below *count*, the first and the last among them."""
    if count <= most:
        return range(count)
    return sorted({i * (count - 1) // (most - 1) for i in range(most)})


# v6

SUPERBLOCK_V6 = layout(
    "magic:4 checksum:4 compat:4 block_bits:1 slots:1 root_nid:2 inos:8 time:8 nsec:4 blocks:4 "
    "meta_blkaddr:4 xattr_blkaddr:4 _uuid:16 _volume:16 incompat:4 compression:2 devices:2 "
    "slotoff:2"
)
EXTENDED_V6 = layout(
    "flags:8 blob_table:8 blob_table_size:4 chunk_size:4 chunk_table:8 chunk_table_size:8 "
    "prefetch_table:8 prefetch_table_size:4"
)
SLOT_V6 = layout("tag:64 blocks:4 mapped:4")
BLOB_V6 = layout(
    "id:64 index:4 chunk_size:4 chunk_count:4 compressor:4 digester:4 features:4 compressed:8 "
    "uncompressed:8 toc_size:4 ci_compressor:4 ci_offset:8 ci_compressed:8 ci_uncompressed:8 "
    "toc_digest:32 meta_digest:32 meta_size:8 iv:8 cipher:4"
)
COMPACT_V6 = layout("format:2 xattr_count:2 mode:2 nlink:2 size:4 _:4 content:4 ino:4 uid:2 gid:2")
EXTENDED_INODE_V6 = layout(
    "format:2 xattr_count:2 mode:2 _:2 size:8 content:4 ino:4 uid:4 gid:4 mtime:8 nsec:4 nlink:4"
)
DIRENT_V6 = layout("nid:8 name_offset:2 type:1")
XATTR_V6 = layout("name_len:1 prefix:1 value_len:2")
CHUNK_INDEX_V6 = layout("low:2 device:2 block:4")
CHUNK = layout(
    "digest:32 blob:4 flags:4 compressed_size:4 uncompressed_size:4 compressed_offset:8 "
    "uncompressed_offset:8 file_offset:8 index:4 crc:4"
)


def map_v6(raw: bytes, nids: Iterable[int]) -> Map:
    """The structures of the v6 bootstrap *raw*, whose inodes are at *nids*."""
    found = Map()
    found.add(SUPERBLOCK_V6, 1024, "superblock")
    found.add(EXTENDED_V6, 1152, "extended")
    (bits,) = struct.unpack_from("<B", raw, 1024 + 12)
    (meta,) = struct.unpack_from("<I", raw, 1024 + 40)
    (devices,) = struct.unpack_from("<H", raw, 1024 + 86)
    _, blobs, _, chunk_size, chunks, chunks_size, prefetch, prefetch_size = struct.unpack_from(
        "<QQIIQQQI", raw, 1152
    )
    found.table(SLOT_V6, 1408, 128, devices, "slot")
    found.table(BLOB_V6, blobs, 256, devices, "blob")
    found.table(CHUNK, chunks, 80, chunks_size // 80, "chunk")
    if prefetch:
        found.table([("nid", 0, 4)], prefetch, 4, prefetch_size // 4, "prefetch")
    every = sorted(set(nids))
    for nid in (every[i] for i in spread(len(every), 60)):
        _map_inode_v6(found, raw, (meta << bits) + nid * 32, bits, chunk_size)
    return found


def _map_inode_v6(found: Map, raw: bytes, offset: int, bits: int, chunk_size: int) -> None:
    (form, xattr_count, mode) = struct.unpack_from("<HHH", raw, offset)
    extended = bool(form & 1)
    found.add(EXTENDED_INODE_V6 if extended else COMPACT_V6, offset, f"inode@{offset}")
    (size,) = struct.unpack_from("<Q" if extended else "<I", raw, offset + 8)
    (content,) = struct.unpack_from("<I", raw, offset + 16)
    tail = offset + (64 if extended else 32)
    if xattr_count:
        end = tail + 12 + (xattr_count - 1) * 4
        at = tail + 12
        while at + 4 <= end:
            found.add(XATTR_V6, at, f"xattr@{at}")
            name_len, value_len = raw[at], struct.unpack_from("<H", raw, at + 2)[0]
            at += (4 + name_len + value_len + 3) // 4 * 4
        tail = end
    if mode >> 12 == 8:
        first = offset + (tail - offset + 7) // 8 * 8
        found.table(CHUNK_INDEX_V6, first, 8, -(-size // chunk_size), f"chunks@{offset}")
    if mode >> 12 != 4:
        return
    block = 1 << bits
    for number in spread(-(-size // block), 4):
        at = (content << bits) + number * block
        if form >> 1 == 2 and (number + 1) * block > size:
            at = tail
        (names,) = struct.unpack_from("<H", raw, at + 8)
        found.table(DIRENT_V6, at, 12, names // 12, f"dirents@{at}")
        found.fields.append(Field("name", at + names, 8))


# v5

SUPERBLOCK_V5 = layout(
    "magic:4 version:4 size:4 chunk_size:4 flags:8 inodes:8 inode_table:8 prefetch_table:8 "
    "blob_table:8 entries:4 prefetch_entries:4 blob_table_size:4 extended_entries:4 extended:8"
)
EXTENDED_BLOB_V5 = layout("chunks:4 features:4 uncompressed:8 compressed:8")
INODE_V5 = layout(
    "digest:32 parent:8 ino:8 uid:4 gid:4 projid:4 mode:4 size:8 blocks:8 flags:8 nlink:4 "
    "child_index:4 child_count:4 name_size:2 symlink_size:2 rdev:4 nsec:4 mtime:8"
)


def up8(size: int) -> int:
    return (size + 7) // 8 * 8


def offsets_v5(raw: bytes) -> list[int]:
    """Where the inode records of *raw* are, in the order of the table."""
    (table,) = struct.unpack_from("<Q", raw, 32)
    (entries,) = struct.unpack_from("<I", raw, 56)
    return [offset << 3 for offset in struct.unpack_from(f"<{entries}I", raw, table)]


def map_v5(raw: bytes) -> Map:
    """The structures of the v5 bootstrap *raw*."""
    found = Map()
    found.add(SUPERBLOCK_V5, 0, "superblock")
    _, _, inodes, prefetch, blobs, entries, prefetches, blobs_size, extended_count, extended = (
        struct.unpack_from("<QQQQQIIIIQ", raw, 16)
    )
    found.table([("offset", 0, 4)], inodes, 4, entries, "inode table")
    found.table([("ino", 0, 4)], prefetch, 4, prefetches, "prefetch")
    found.table(EXTENDED_BLOB_V5, extended, 64, extended_count, "extended blob")
    if blobs_size:
        found.add([("readahead", 0, 8), ("id", 8, min(64, blobs_size - 8))], blobs, "blob")
    records = offsets_v5(raw)
    for at in (records[i] for i in spread(len(records), 60)):
        found.add(INODE_V5, at, f"inode@{at}")
        flags = struct.unpack_from("<Q", raw, at + 80)[0]
        mode = struct.unpack_from("<I", raw, at + 60)[0]
        chunks, name_size, symlink_size = struct.unpack_from("<IHH", raw, at + 96)
        found.fields.append(Field("name", at + 128, min(8, name_size)))
        behind = at + 128 + up8(name_size) + up8(symlink_size)
        if flags & 4:
            (size,) = struct.unpack_from("<Q", raw, behind)
            found.add([("size", 0, 8), ("pair", 8, 4)], behind, f"xattrs@{behind}")
            behind += 8 + up8(size)
        if mode >> 12 == 8:
            found.table(CHUNK, behind, 80, chunks, f"chunks@{behind}")
    return found


# blobs

CI_HEADER = layout(
    "magic:4 features:4 compressor:4 entries:4 ci_offset:8 ci_compressed:8 ci_uncompressed:8 "
    "contexts_offset:8 contexts_size:8 contexts_count:4"
)
TOC_ENTRY = layout("flags:4 _:4 name:16 digest:32 offset:8 compressed:8 uncompressed:8")
BATCH_CONTEXT = layout("compressed:4 uncompressed:4")
ZRAN_CONTEXT = layout(
    "in_offset:8 out_offset:8 dict_offset:8 in_len:4 out_len:4 dict_size:4 byte:1 bits:1"
)
CI_V2 = layout("plain:4 plain_size:3 flags:1 stored:5 stored_size:3 offset:4 context:4")
CI_V1 = layout("plain:8 stored:8")


def map_ci(raw: bytes, entry_size: int, count: int, contexts: int, zran: bool) -> Map:
    """The plain CI array *raw* with its contexts, and its header at the end (4096 bytes)."""
    found = Map()
    found.table(CI_V2 if entry_size == 24 else CI_V1, 0, entry_size, count, "entry")
    if contexts:
        context = ZRAN_CONTEXT if zran else BATCH_CONTEXT
        found.table(context, entry_size * count, 40, contexts, "context")
    found.add(CI_HEADER, len(raw) - 4096, "header")
    return found


def map_toc(raw: bytes) -> Map:
    """A table of contents with its tar header, which is the last 512 bytes of *raw*."""
    found = Map()
    entries = (len(raw) - 512) // 128
    found.table(TOC_ENTRY, len(raw) - 512 - 128 * entries, 128, entries, "section")
    header = layout(
        "name:100 mode:8 uid:8 gid:8 size:12 mtime:12 checksum:8 type:1 link:100 magic:8"
    )
    found.add(header, len(raw) - 512, "tar")
    return found


GPT_HEADER = layout(
    "signature:8 revision:4 size:4 crc:4 _:4 own:8 other:8 first:8 last:8 guid:16 entries:8 "
    "count:4 entry_size:4 entries_crc:4"
)
GPT_ENTRY = layout("kind:16 guid:16 first:8 last:8 flags:8 name:72")


def map_gpt() -> Map:
    """A disk of 40 sectors of 512 bytes with both its tables of 8 entries."""
    found = Map()
    for own, first in ((1, 2), (39, 36)):
        found.add(GPT_HEADER, 512 * own, f"header@{own}")
        found.table(GPT_ENTRY, 512 * first, 128, 8, f"entry@{first}")
    return found


def map_words(raw: bytes, unit: int, prefix: str) -> Map:
    """A file of which only the size of its numbers is known."""
    found = Map()
    found.table([("word", 0, unit)], 0, unit, len(raw) // unit, prefix)
    return found
