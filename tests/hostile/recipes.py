"""A hundred hostile images as recipes, each a few changes to a golden image.

A recipe says what the checker must say and what a mount must do: be refused, or serve every name
that is not hurt as the golden image has it.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.hostile.editing import Edit

M64, M32 = 2**64 - 1, 2**32 - 1


@dataclass(frozen=True)
class Recipe:
    """One hostile image."""

    name: str
    version: int
    change: Callable[[Edit], None]
    says: str  # part of a finding; of the refusal, if it is one
    refused: bool = False
    hurt: tuple[str, ...] = ()  # paths that a mount may show in another way, and all below them


def tables(version: int, *rows: tuple[str, str, int | bytes, str]) -> list[Recipe]:
    """Recipes that set one field of a table, and are refused."""
    return [
        Recipe(
            f"{name} = {value!r}"[:60],
            version,
            lambda edit, field=name, new=value: edit.set(field, new),  # type: ignore[misc]
            says,
            refused=True,
        )
        for name, _, value, says in ((row[0], *row[1:]) for row in rows)
    ]


def hurts(
    version: int, path: str, says: str, name: str, change: Callable[[Edit], None], *more: str
) -> Recipe:
    """A recipe that hurts *path* alone, and *more*."""
    return Recipe(name, version, change, says, hurt=(path, *more))


def put(path: str, **values: int) -> Callable[[Edit], None]:
    return lambda edit: edit.put(path, **values)


TABLES_V6 = tables(
    6,
    ("superblock.magic", "", 0, "neither a RAFS v5 nor a RAFS v6"),
    ("superblock.checksum", "", 1, "checksum"),
    ("superblock.compat", "", 0, "plain EROFS"),
    ("superblock.block_bits", "", 0, "block size"),
    ("superblock.block_bits", "", 9, "tarfs flag disagree"),
    ("superblock.block_bits", "", 255, "block size"),
    ("superblock.slots", "", 1, "extra slots"),
    ("superblock.root_nid", "", 0, "root inode 0"),
    ("superblock.root_nid", "", 0xFFFF, "root inode 65535"),
    ("superblock.inos", "", 0, "no inodes"),
    ("superblock.meta_blkaddr", "", M32, "root inode"),
    ("superblock.xattr_blkaddr", "", 1, "shared xattrs"),
    ("superblock.incompat", "", 0x8000, "incompatible"),
    ("superblock.compression", "", 1, "compressed"),
    ("superblock.devices", "", 0xFFFF, "65535 blobs"),
    ("superblock.devices", "", 0, "blob"),
    ("superblock.slotoff", "", 0, "device slots start"),
    ("extended.flags", "", 0x1 | 0x2 | 0x4, "do not name one"),
    ("extended.flags", "", 1 << 40, "unknown bits"),
    ("extended.blob_table", "", 0, "blob table is at 0"),
    ("extended.blob_table", "", M64 - 4095, "blob table"),
    ("extended.blob_table_size", "", 255, "255 bytes"),
    ("extended.blob_table_size", "", 256 << 16, "for 1 blobs"),
    ("extended.chunk_size", "", 0, "chunk size 0x0"),
    ("extended.chunk_size", "", 0x1001, "chunk size 0x1001"),
    ("extended.chunk_size", "", 0x80000000, "chunk size 0x80000000"),
    ("extended.chunk_table", "", 1 << 62, "chunk table"),
    ("extended.chunk_table_size", "", 79, "79 bytes"),
    ("extended.chunk_table_size", "", 80 << 32, "chunk table ends"),
    ("extended.prefetch_table_size", "", 3, "prefetch table has 3"),
    ("slot[0].blocks", "", 0, "no blocks"),
    ("blob[0].index", "", 1, "has index 1"),
    ("blob[0].chunk_size", "", 0, "chunks of 0 bytes"),
    ("blob[0].chunk_count", "", M32, "4294967295 chunks"),
    ("blob[0].chunk_count", "", 0, "0 chunks"),
    ("blob[0].compressor", "", 99, "unknown number 99"),
    ("blob[0].digester", "", 7, "unknown number 7"),
    ("blob[0].cipher", "", 3, "cipher"),
    ("blob[0].features", "", 0x80000001, "unknown bits"),
    ("blob[0].features", "", 0, "alignment"),
    ("blob[0].compressed", "", 1 << 63, "bytes for"),
    ("blob[0].uncompressed", "", M64, "bytes for"),
    ("blob[0].id", "", b"../../../../etc/passwd".ljust(64, b"\0"), "no name of a file"),
    ("blob[0].id", "", bytes(64), "has 0 bytes"),
    ("blob[0].ci_compressed", "", M64, "grows"),
)
TABLES_V5 = tables(
    5,
    ("superblock.magic", "", 0, "neither a RAFS v5 nor a RAFS v6"),
    ("superblock.version", "", 0x600, "version"),
    ("superblock.size", "", 0, "superblock has 0"),
    ("superblock.chunk_size", "", 0, "chunk size 0x0"),
    ("superblock.chunk_size", "", M32, "chunk size"),
    ("superblock.flags", "", 1 << 50, "unknown bits"),
    ("superblock.inodes", "", M64, "inodes have"),
    ("superblock.inode_table", "", M64 - 7, "inode table"),
    ("superblock.inode_table", "", 1, "a table is at 1"),
    ("superblock.inode_table", "", 0, "overlaps the superblock"),
    ("superblock.entries", "", 0, "0 entries"),
    ("superblock.entries", "", M32, "entries"),
    ("superblock.prefetch_entries", "", M32, "prefetch table"),
    ("superblock.blob_table", "", 8192, "overlaps"),
    ("superblock.blob_table_size", "", M32, "blob table"),
    ("superblock.extended_entries", "", 0x10000, "extended blob table"),
    ("superblock.extended", "", 1 << 40, "extended blob table"),
    ("inode table[0].offset", "", 0, "first inode is not a directory"),
    ("inode table[0].offset", "", M32, "first inode is not a directory"),
    ("blob.id", "", b"/etc/passwd", "no name of a file"),
)


def swap(edit: Edit, one: int, other: int, size: int) -> None:
    raw = edit.raw
    raw[one : one + size], raw[other : other + size] = (
        bytes(raw[other : other + size]),
        bytes(raw[one : one + size]),
    )


def loop_to_root(edit: Edit) -> None:
    edit.pack(edit.entry("/deep/er"), "<Q", edit.number("/"))


def rename_v6(path: str, new: bytes) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        at = edit.entry_name(path)
        edit.raw[at : at + len(new)] = new

    return change


def rename_v5(path: str, new: bytes) -> Callable[[Edit], None]:
    def change(edit: Edit) -> None:
        at = edit.name_v5(path)
        edit.raw[at : at + len(new)] = new

    return change


def at_entry(path: str, form: str, offset: int, value: int) -> Callable[[Edit], None]:
    return lambda edit: edit.pack(edit.entry(path) + offset, form, value)


def at_chunk(path: str, form: str, offset: int, value: int) -> Callable[[Edit], None]:
    return lambda edit: edit.pack(edit.chunk(path) + offset, form, value)


def behind(path: str, form: str, offset: int, value: int) -> Callable[[Edit], None]:
    return lambda edit: edit.pack(edit.behind(path) + offset, form, value)


def repeat_xattr(edit: Edit) -> None:
    """The second attribute gets the key of the first, which is as long as is needed for that."""
    at = edit.behind("/file-1") + 12
    first = struct.unpack_from("<BBH", edit.raw, at)
    second = at + (4 + first[0] + first[2] + 3) // 4 * 4
    size = min(first[0], struct.unpack_from("<B", edit.raw, second)[0])
    for place in (at, second):
        edit.raw[place + 4 : place + 4 + size] = b"k" * size
        edit.raw[place + 1] = 1
        name, value = edit.raw[place], struct.unpack_from("<H", edit.raw, place + 2)[0]
        edit.pack(place, "<BBH", size, 1, value + name - size)


FILE, LINK, MANY = "/file-4097", "/link", "/many"
NAMES = ("/file-4095", "/file-4096", FILE)
TREES_V6 = [
    Recipe(
        "more names than there are",
        6,
        lambda e: e.set("superblock.inos", 1 << 63),
        "the superblock counts 9223372036854775808 names",
    ),
    hurts(6, FILE, "has a size of", "size 2^63", put(FILE, size=1 << 63)),
    hurts(6, FILE, "chunks, more than the file has bytes", "size 2^60", put(FILE, size=1 << 60)),
    hurts(6, FILE, "its chunk numbers", "size 2^40", put(FILE, size=1 << 35)),
    hurts(6, FILE, "cannot be read", "no such type", put(FILE, mode=0o170644)),
    hurts(6, FILE, "cannot be read", "a file that is a directory", put(FILE, mode=0o040755)),
    hurts(6, FILE, "cannot be read", "a file with its data inline", put(FILE, format=5)),
    hurts(6, MANY, "cannot be read", "a directory in chunks", put(MANY, format=9)),
    hurts(6, FILE, "has 0 links", "no links", put(FILE, nlink=0)),
    hurts(6, FILE, "ns behind a second", "4 seconds of ns", put(FILE, nsec=M32)),
    hurts(
        6, "/file-1", "cannot be read", "attributes of 256 KiB", put("/file-1", xattr_count=0xFFFF)
    ),
    hurts(6, "/file-1", "broken", "shared attributes", behind("/file-1", "<B", 4, 255)),
    hurts(6, "/file-1", "broken", "attribute's name of 255", behind("/file-1", "<B", 12, 255)),
    hurts(6, "/file-1", "broken", "unknown prefix", behind("/file-1", "<B", 13, 9)),
    hurts(6, "/file-1", "broken", "attribute of 65535 bytes", behind("/file-1", "<H", 14, 0xFFFF)),
    hurts(6, "/file-1", "twice", "an attribute twice", repeat_xattr),
    hurts(6, LINK, "a target of 0 bytes", "empty target", put(LINK, size=0)),
    hurts(6, LINK, "cannot be read", "a target of 2^32 bytes", put(LINK, size=1 << 32)),
    hurts(6, LINK, "its data", "a target of 5000 bytes", put(LINK, size=5000)),
    hurts(
        6,
        "/dangling",
        "NUL in its target",
        "NUL in a target",
        lambda e: e.pack(e.target("/dangling"), "<B", 0),
    ),
    hurts(6, FILE, "is in no blob", "device 0", at_chunk(FILE, "<H", 2, 0)),
    hurts(6, FILE, "is in no blob", "device 255", at_chunk(FILE, "<H", 2, 0xFF)),
    hurts(6, FILE, "is in no blob", "chunk 65535", at_chunk(FILE, "<H", 0, 0xFFFF)),
    hurts(6, FILE, "is in no blob", "block 2^32", at_chunk(FILE, "<I", 4, M32)),
    hurts(6, FILE, "chunk table has", "another chunk's place", at_chunk(FILE, "<I", 4, 0)),
    hurts(6, FILE, "behind the file", "nid 2^63", at_entry(FILE, "<Q", 0, 1 << 63), "/"),
    hurts(6, "/deep", "another place in the tree", "a loop to the root", loop_to_root),
    hurts(
        6,
        "/deep",
        "another place in the tree",
        "a directory in itself",
        lambda e: e.pack(e.entry("/deep/er"), "<Q", e.number("/deep")),
    ),
    hurts(
        6,
        MANY,
        "another place in the tree",
        "a hard link to a directory",
        lambda e: e.pack(e.entry(MANY), "<Q", e.number("/empty")),
        "/empty",
    ),
    hurts(
        6, FILE, "says type", "a file that is listed as a directory", at_entry(FILE, "<B", 10, 2)
    ),
    hurts(
        6,
        "/file-4096",
        "lookups may miss it",
        "names out of order",
        rename_v6("/file-4096", b"file-9096"),
        *NAMES,
        "/file-9096",
    ),
    hurts(
        6,
        "/file-4095",
        "stands twice",
        "a name twice",
        rename_v6("/file-4096", b"file-4095"),
        *NAMES,
    ),
    hurts(6, "/file-4096", "no name", "a slash in a name", rename_v6("/file-4096", b"fi/e"), "/"),
    hurts(6, "/file-4096", "no name", "NUL in a name", rename_v6("/file-4096", b"fi\0e"), "/"),
    hurts(6, FILE, "no name", "a name at 0", at_entry(FILE, "<H", 8, 0), "/"),
    hurts(6, FILE, "no name", "a name at 65535", at_entry(FILE, "<H", 8, 0xFFFF), "/"),
    hurts(6, "/", "leads to inode", "`.` of the root elsewhere", at_entry("/.", "<Q", 0, 5)),
    hurts(6, MANY, "leads to inode", "`..` elsewhere", at_entry("/many/..", "<Q", 0, 5)),
    hurts(6, MANY, "its data", "a directory of 2^63 bytes", put(MANY, size=1 << 63)),
    hurts(6, MANY, "its data", "entries behind the file", put(MANY, content=M32)),
    hurts(
        6,
        MANY,
        "lies on other metadata",
        "entries of another directory",
        lambda e: e.put(MANY, content=e.read("/", "content"), format=e.read("/", "format")),
        "/",
    ),
    Recipe(
        "a chunk record of no blob",
        6,
        lambda e: e.set("chunk[0].blob", M32),
        "is in blob 4294967295 of 1",
    ),
    Recipe(
        "a chunk record told twice",
        6,
        lambda e: e.set("chunk[1].index", e.get("chunk[0].index")),
        "has two places",
        hurt=(f"/{'l' * 255}",),  # of two digests the wrong one may count
    ),
    Recipe(
        "a chunk of 0 bytes", 6, lambda e: e.set("chunk[0].uncompressed_size", 0), "has 0 bytes"
    ),
    Recipe(
        "chunks over each other",
        6,
        lambda e: e.set("chunk[1].uncompressed_offset", e.get("chunk[0].uncompressed_offset")),
        "lies on chunk",
    ),
    Recipe(
        "stored chunks over each other",
        6,
        lambda e: e.set("chunk[1].compressed_offset", e.get("chunk[0].compressed_offset")),
        "of the stored blob",
    ),
]


def cross_link_v5(edit: Edit) -> None:
    """A directory's row of the inode table leads to another's record."""
    rows = edit.fields["inode table[0].offset"].offset
    one, other = edit.number(MANY), edit.number("/empty")
    edit.pack(rows + 4 * (one - 1), "<I", edit.records[other - 1] >> 3)


def xattr_size_v5(value: int) -> Callable[[Edit], None]:
    return behind("/file-1", "<Q", 0, value)


TREES_V5 = [
    hurts(5, FILE, "has a size of", "size 2^63", put(FILE, size=1 << 63)),
    hurts(5, FILE, "its chunks have", "size 2^40", put(FILE, size=1 << 40)),
    hurts(5, FILE, "cannot be read", "no such type", put(FILE, mode=0o170644), "/"),
    hurts(5, MANY, "children from inode", "2^32 children", put(MANY, child_count=M32)),
    hurts(5, MANY, "children from inode", "a directory in itself", put(MANY, child_index=1)),
    hurts(5, MANY, "as its parent", "another parent", put(MANY, parent=77), "/"),
    hurts(5, FILE, "cannot be read", "another number", put(FILE, ino=M64), "/"),
    hurts(5, FILE, "cannot be read", "number 0", put(FILE, ino=0), "/"),
    hurts(5, FILE, "cannot be read", "no name", put(FILE, name_size=0), "/"),
    hurts(5, FILE, "cannot be read", "a name of 65535 bytes", put(FILE, name_size=0xFFFF), "/"),
    hurts(5, LINK, "a target of 0 bytes", "empty target", put(LINK, symlink_size=0)),
    hurts(5, FILE, "", "a target in a file", put(FILE, symlink_size=0xFFFF), "/"),
    hurts(5, FILE, "has 0 links", "no links", put(FILE, nlink=0)),
    hurts(5, FILE, "cannot be read", "attributes in chunks", put(FILE, flags=4), "/"),
    hurts(5, "/file-1", "cannot be read", "attributes of 2^63 bytes", xattr_size_v5(1 << 63), "/"),
    hurts(5, "/file-1", "broken", "a pair of 2^32 bytes", behind("/file-1", "<I", 8, M32)),
    hurts(5, "/file-1", "broken", "a pair without a key", behind("/file-1", "<I", 8, 0)),
    hurts(5, FILE, "a chunk in blob", "blob 2^32", at_chunk(FILE, "<I", 32, M32)),
    hurts(5, FILE, "of a blob of", "chunk 2^32", at_chunk(FILE, "<I", 72, M32)),
    hurts(5, FILE, "chunks have", "a chunk of 0 bytes", at_chunk(FILE, "<I", 44, 0)),
    hurts(5, FILE, "chunks have", "a chunk of 2^32 bytes", at_chunk(FILE, "<I", 44, M32)),
    hurts(5, FILE, "of the stored blob", "stored at 2^63", at_chunk(FILE, "<Q", 48, 1 << 63)),
    hurts(5, FILE, "of the plain", "plain at 2^64", at_chunk(FILE, "<Q", 56, M64)),
    hurts(5, FILE, "chunk 0 of the file", "a chunk at 2^63", at_chunk(FILE, "<Q", 64, 1 << 63)),
    hurts(5, FILE, "its chunks have", "one chunk less", put(FILE, child_count=0)),
    hurts(
        5,
        "/file-4096",
        "lookups may miss it",
        "names out of order",
        rename_v5("/file-4096", b"file-9096"),
        *NAMES,
        "/file-9096",
    ),
    hurts(
        5,
        "/file-4095",
        "stands twice",
        "a name twice",
        rename_v5("/file-4096", b"file-4095"),
        *NAMES,
    ),
    hurts(
        5, "/file-4096", "has the name", "a slash in a name", rename_v5("/file-4096", b"fi/"), "/"
    ),
    hurts(5, "/file-4096", "has the name", "NUL in a name", rename_v5("/file-4096", b"fi\0"), "/"),
    hurts(5, MANY, "another place", "a directory's row is another's", cross_link_v5, "/"),
    Recipe(
        "a digest that is wrong", 5, lambda e: e.put(FILE, digest=bytes(32)), "match its digest"
    ),
]
RECIPES = [*TABLES_V6, *TABLES_V5, *TREES_V6, *TREES_V5]
