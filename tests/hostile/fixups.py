"""Checksums and digests of a mutant made right again, so that it comes past the first check."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress

from blake3 import blake3

from tests.hostile.structures import offsets_v5, up8


def digests_v5(raw: bytearray) -> None:
    """Digests of files and symlinks from their content, those of directories from their children.

    As far as records can be found; a mutant without readable tables stays as it is.
    """
    with suppress(struct.error, IndexError, OverflowError, MemoryError):
        (flags,) = struct.unpack_from("<Q", raw, 16)
        digest: Callable[[bytes], bytes] = (
            (lambda data: hashlib.sha256(data).digest())
            if flags & 8
            else (lambda data: blake3(data).digest())
        )
        records = offsets_v5(bytes(raw))
        for at in reversed(records):
            with suppress(struct.error, IndexError, OverflowError):
                raw[at : at + 32] = digest(_content(raw, at, records))


def _content(raw: bytearray, at: int, records: list[int]) -> bytes:
    """What the digest of the record at *at* is made of."""
    mode = struct.unpack_from("<I", raw, at + 60)[0]
    flags = struct.unpack_from("<Q", raw, at + 80)[0]
    first, count, name_size, target_size = struct.unpack_from("<IIHH", raw, at + 92)
    count = min(count, 10000)
    if mode >> 12 == 4:
        children = records[first - 1 : first - 1 + count]
        return b"".join(bytes(raw[child : child + 32]) for child in children)
    target = at + 128 + up8(name_size)
    if mode >> 12 == 10:
        return bytes(raw[target : target + target_size])
    if mode >> 12 != 8:
        return b""
    chunks = target + up8(target_size)
    if flags & 4:
        chunks += 8 + up8(struct.unpack_from("<Q", raw, chunks)[0])
    return b"".join(bytes(raw[i : i + 32]) for i in range(chunks, chunks + 80 * count, 80))


def toc(raw: bytearray) -> None:
    """The checksum of the tar header at the end, and the digests of plain sections."""
    if len(raw) < 1024:
        return
    with suppress(ValueError, struct.error, OverflowError):
        header = len(raw) - 512
        size = int(bytes(raw[header + 124 : header + 135]).strip(b"\0 "), 8)
        for entry in range(header - size, header, 128):
            flags = struct.unpack_from("<I", raw, entry)[0]
            offset, stored, plain = struct.unpack_from("<QQQ", raw, entry + 56)
            if flags & 15 == 1 and stored == plain and offset + plain <= len(raw):
                data = bytes(raw[offset : offset + plain])
                raw[entry + 24 : entry + 56] = hashlib.sha256(data).digest()
    header = len(raw) - 512
    raw[header + 148 : header + 156] = b" " * 8
    total = sum(raw[header : header + 512])
    raw[header + 148 : header + 156] = b"%06o\0 " % (total % 0o1000000)


def gpt(raw: bytearray) -> None:
    """The CRCs of both partition tables, and of their headers."""
    for at in (512, len(raw) // 512 * 512 - 512):
        with suppress(struct.error, OverflowError):
            size = struct.unpack_from("<I", raw, at + 12)[0]
            first, count, entry_size = struct.unpack_from("<QII", raw, at + 72)
            if size > 512 or count * entry_size > 1 << 16:
                continue
            table = bytes(raw[first * 512 : first * 512 + count * entry_size])
            struct.pack_into("<I", raw, at + 88, zlib.crc32(table))
            struct.pack_into("<I", raw, at + 16, 0)
            struct.pack_into("<I", raw, at + 16, zlib.crc32(bytes(raw[at : at + size])))
