"""Make the images in `images/` that the reference's builder of 2.2.0 cannot: by rewriting one.

`python -m tests.golden.make_kinds`, after `make_images`: packs the chunks of `v6-none` anew and
patches the blob and the chunk table, from the format's description alone.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import struct
from pathlib import Path
from typing import NamedTuple

import zstandard

from tests.cache.made_units import IV, KEY, xts

IMAGES = Path(__file__).with_name("images")
SOURCE = IMAGES / "v6-none"
PAGE = 4096
BATCH_BYTES = 0x2000
BLOB_TABLE = 4096  # one blob: its entry is the first thing behind the superblock's block
ZSTD, GZIP = 3, 2
ALIGNED, V2, BATCH, ENCRYPTED, CAP_TAR_TOC = 1, 4, 0x80, 0x100, 0x40000000
FLAG_COMPRESSED, FLAG_BATCH, FLAG_ENCRYPTED = 1, 4, 8  # of an entry of the CI array
RECORD_COMPRESSED, RECORD_ENCRYPTED = 1, 4  # of a record of the chunk table
RECORD_SIZE = 80
COMPRESSORS = 0x1 | 0x2 | 0x40 | 0x80  # of the superblock's flags
CIPHERS = 0x1000000 | 0x2000000


class Place(NamedTuple):
    """Where a chunk is in the blob, as the chunk table has it; nowhere when it is in a batch."""

    flags: int = 0
    size: int = 0  # bytes
    offset: int = 0


class Packed(NamedTuple):
    """A blob and what the tables of the bootstrap say of it."""

    data: bytes
    compressor: int
    features: int
    ci_offset: int
    ci_stored: int
    ci_plain: int
    places: list[Place]  # of the chunks in their order


def plain_chunks() -> list[bytes]:
    """The chunks of the source image, in chunk order."""
    (path,) = (SOURCE / "blobs").iterdir()
    blob = path.read_bytes()
    compressor, count, offset, size = struct.unpack_from("<IIQQ", blob, len(blob) - PAGE + 8)
    table = blob[offset : offset + size]
    if compressor == ZSTD:
        table = zstandard.ZstdDecompressor().decompress(table)
    chunks = []
    for index in range(count):
        plain, stored = struct.unpack_from("<QQ", table, 16 * index)
        size = (plain >> 44) + 1
        at = stored & (1 << 40) - 1
        chunks.append(blob[at : at + size])
    return chunks


def header(entries: int, packed_at: int, stored: int, plain: int, contexts: int) -> bytes:
    """A blob meta header for an array that is not compressed."""
    head = struct.pack("<IIIIQQQ", 0xB10BB10B, 0, 0, entries, packed_at, stored, plain)
    if contexts:
        head += struct.pack("<QQI", 24 * entries, 40 * contexts, contexts)
    return head.ljust(4092, b"\0") + struct.pack("<I", 0xB10BB10B)


def units(*, batched: bool, encrypted: bool) -> Packed:
    """Chunks in batches and by themselves, zstd."""
    data, entries, contexts = bytearray(), [], []
    places: list[Place] = []
    waiting: list[tuple[int, bytes]] = []  # plain offset, chunk
    offset = 0

    def seal(plain: bytes) -> bytes:
        stored = zstandard.ZstdCompressor(level=3).compress(plain)
        stored = stored if len(stored) < len(plain) else plain
        return xts(stored) if encrypted else stored

    def close_batch() -> None:
        content = b"".join(chunk for _, chunk in waiting)
        if not content:
            return
        stored = seal(content)
        inside = 0
        for at, chunk in waiting:
            flags = FLAG_BATCH | FLAG_COMPRESSED | FLAG_ENCRYPTED * encrypted
            first = at >> 12 | (len(chunk) - 1) << 32 | flags << 56
            entries.append(struct.pack("<QQQ", first, len(data), len(contexts) << 32 | inside))
            places.append(Place())
            inside += len(chunk)
        contexts.append(struct.pack("<II", len(stored), len(content)).ljust(40, b"\0"))
        data.extend(stored)
        waiting.clear()

    for chunk in plain_chunks():
        if batched and len(chunk) < BATCH_BYTES // 2:
            if sum(len(other) for _, other in waiting) + len(chunk) >= BATCH_BYTES:
                close_batch()
            waiting.append((offset, chunk))
        else:
            close_batch()
            stored = seal(chunk)
            compressed = len(stored) != max(len(chunk), 18 * encrypted)
            flags = FLAG_ENCRYPTED * encrypted | FLAG_COMPRESSED * compressed
            told = RECORD_ENCRYPTED * encrypted | RECORD_COMPRESSED * compressed
            places.append(Place(told, len(stored), len(data)))
            first = offset >> 12 | (len(chunk) - 1) << 32 | flags << 56
            entries.append(struct.pack("<QQQ", first, len(data) | len(stored) << 40, 0))
            data += stored
        offset += -(-len(chunk) // PAGE) * PAGE
    close_batch()
    plain = b"".join(entries) + b"".join(contexts)
    table = xts(plain) if encrypted else plain
    head = header(len(entries), len(data), len(table), len(plain), len(contexts))
    features = ALIGNED | V2 | CAP_TAR_TOC | BATCH * bool(contexts) | ENCRYPTED * encrypted
    blob = bytes(data) + table + (xts(head) if encrypted else head)
    return Packed(blob, ZSTD, features, len(data), len(table), len(plain), places)


def members() -> Packed:
    """Each chunk a gzip member whose stored size is told as more than it has (legacy eStargz).

    By the blob's own table, that is: the bootstrap's has the sizes as they are.
    """
    data, entries = bytearray(), []
    places: list[Place] = []
    offset = 0
    for chunk in plain_chunks():
        stored = gzip.compress(chunk, mtime=0)
        told = len(stored) + 100 - 1
        size = len(chunk) - 1
        entries.append(
            struct.pack(
                "<QQ",
                offset | (size & 0xFFFFF) << 44 | (size >> 20) << 8,
                len(data) | (told & 0xFFFFF) << 44 | (told >> 20) << 40,
            )
        )
        places.append(Place(RECORD_COMPRESSED, len(stored), len(data)))
        data += stored
        offset += -(-len(chunk) // PAGE) * PAGE
    table = b"".join(entries)
    head = header(len(entries), len(data) + 200, len(table), len(table), 0)
    # 200 bytes behind the last member, where its told size may reach.
    blob = bytes(data) + bytes(200) + table + head
    features = ALIGNED | CAP_TAR_TOC
    return Packed(blob, GZIP, features, len(data) + 200, len(table), len(table), places)


def write_chunk_table(boot: bytearray, places: list[Place]) -> None:
    """Where the chunks are now, in the records of the bootstrap's chunk table."""
    start, size = struct.unpack_from("<QQ", boot, 1176)
    for record in range(start, start + size, RECORD_SIZE):
        (index,) = struct.unpack_from("<I", boot, record + 72)
        place = places[index]
        struct.pack_into("<II", boot, record + 36, place.flags, place.size)
        struct.pack_into("<Q", boot, record + 48, place.offset)


def write(name: str, packed: Packed) -> None:
    """The source image with *packed* in the place of its blob."""
    out = IMAGES / name
    shutil.rmtree(out, ignore_errors=True)
    (out / "blobs").mkdir(parents=True)
    blob_id = hashlib.sha256(packed.data).hexdigest().encode()
    (out / "blobs" / blob_id.decode()).write_bytes(packed.data)
    boot = bytearray((SOURCE / "bootstrap").read_bytes())
    encrypted = packed.features & ENCRYPTED
    flags = struct.unpack_from("<Q", boot, 1152)[0] & ~(COMPRESSORS | CIPHERS)
    flags |= 0x40 if packed.compressor == GZIP else 0x80
    flags |= 0x2000000 if encrypted else 0x1000000
    struct.pack_into("<Q", boot, 1152, flags)
    boot[1408 : 1408 + 64] = blob_id  # the device slot
    boot[BLOB_TABLE : BLOB_TABLE + 64] = blob_id
    struct.pack_into("<I", boot, BLOB_TABLE + 76, packed.compressor)
    struct.pack_into("<I", boot, BLOB_TABLE + 84, packed.features)
    struct.pack_into("<Q", boot, BLOB_TABLE + 88, len(packed.data))
    struct.pack_into("<I", boot, BLOB_TABLE + 108, 0)
    where = (packed.ci_offset, packed.ci_stored, packed.ci_plain)
    struct.pack_into("<QQQ", boot, BLOB_TABLE + 112, *where)
    if encrypted:
        boot[BLOB_TABLE + 168 : BLOB_TABLE + 200] = KEY
        boot[BLOB_TABLE + 200 : BLOB_TABLE + 216] = IV
        struct.pack_into("<I", boot, BLOB_TABLE + 216, 1)
    write_chunk_table(boot, packed.places)
    (out / "bootstrap").write_bytes(boot)
    shutil.copy(SOURCE / "manifest.json.gz", out / "manifest.json.gz")


def main() -> None:
    """Write all images anew."""
    write("v6-batch", units(batched=True, encrypted=False))
    write("v6-batch-encrypted", units(batched=True, encrypted=True))
    write("v6-encrypted", units(batched=False, encrypted=True))
    write("v6-gzip-members", members())


if __name__ == "__main__":
    main()
