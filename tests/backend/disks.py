"""Disks with partition tables, packed from the UEFI specification."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import NamedTuple
from uuid import UUID

LINUX_DATA = UUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
BASIC_DATA = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
ENTRIES = 128
ENTRY_BYTES = 128


class Part(NamedTuple):
    """What is written into one entry; LBAs are placed one behind the other when *first* is 0."""

    data: bytes
    name: str
    guid: UUID = UUID(int=1)
    kind: UUID = LINUX_DATA
    first: int = 0
    last: int = 0


def for_blob(blob_id: str, data: bytes) -> Part:
    """A partition that is the blob with the 64-digit *blob_id*."""
    return Part(data, blob_id[:32], UUID(blob_id[32:]))


def header(lba: int, other: int, entries_at: int, table: bytes, sector: int, **more: int) -> bytes:
    """The header block at *lba*; *more* are fields to be wrong on purpose."""
    fields = {
        "revision": 0x10000,
        "size": 92,
        "own": lba,
        "first": entries_at,
        "count": ENTRIES,
        "entry_size": ENTRY_BYTES,
        "table_crc": zlib.crc32(table),
        **more,
    }
    tables = ENTRIES * ENTRY_BYTES // sector
    head = struct.pack(
        "<8sIIIIQQQQ16sQIII", b"EFI PART", fields["revision"], fields["size"], 0, 0, fields["own"],
        other, 2 + tables, max(lba, other) - tables - 1, UUID(int=7).bytes_le,
        fields["first"], fields["count"],
        fields["entry_size"], fields["table_crc"],
    )  # fmt: skip
    crc = fields.get("crc", zlib.crc32(head[: fields["size"]]))
    return (head[:16] + struct.pack("<I", crc) + head[20:]).ljust(sector, b"\0")


def disk(parts: Sequence[Part], sector: int = 512, **more: int) -> bytes:
    """An image of a disk with *parts*, first table, data, backup table."""
    table_sectors = ENTRIES * ENTRY_BYTES // sector
    at = 2 + table_sectors
    table = bytearray(ENTRIES * ENTRY_BYTES)
    body = bytearray()
    for number, part in enumerate(parts):
        count = -(-len(part.data) // sector) or 1
        first, last = (part.first, part.last) if part.first else (at, at + count - 1)
        struct.pack_into(
            "<16s16sQQQ72s", table, number * ENTRY_BYTES, part.kind.bytes_le, part.guid.bytes_le,
            first, last, 0, part.name.encode("utf-16-le"),
        )  # fmt: skip
        body += part.data.ljust(count * sector, b"\0")
        at += count
    end = at + table_sectors
    image = bytearray(sector) + header(1, end, 2, table, sector, **more) + table + body
    image += table + header(end, 1, at, table, sector)
    return bytes(image)
