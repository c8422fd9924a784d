"""The partitions of a disk with a GUID partition table.

Source of the format: UEFI specification, chapter 5 (GUID Partition Table Disk Layout). Nothing in
it is trusted: lengths, counts and places are held against the disk, and both CRCs are checked. When
the table at the start is damaged, its copy at the end is taken.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from typing import TYPE_CHECKING
from uuid import UUID

from nydusd.base.errors import BackendError
from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

SIGNATURE = b"EFI PART"
REVISION = 0x00010000
# Signature, revision, header size, its CRC, reserved, own LBA, other LBA, first and last usable
# LBA, disk GUID, LBA of the entries, their number, bytes of one, their CRC.
HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
CRC_AT = 16
# Type GUID, own GUID, first and last LBA, attributes, name in UTF-16.
ENTRY = struct.Struct("<16s16sQQQ72s")
ENTRY_BYTES_MAX = 4096
TABLE_BYTES_MAX = 1 << 20  # 8,192 entries; the usual table has 128
UNUSED = bytes(16)


class Partition(NamedTuple):
    """One partition, in bytes."""

    number: int  # from 1, as tools count
    kind: UUID
    guid: UUID
    name: str
    offset: int
    size: int


class BrokenTable(BackendError):
    """The disk has no usable partition table, or one that contradicts itself."""


def read_partitions(read: Callable[[int, int], bytes], size: int, sector: int) -> list[Partition]:
    """The partitions of a disk of *size* bytes in *sector*s, in the order of the table.

    *read* gives bytes at an offset. `BrokenTable` when neither table can be used.
    """
    problems = []
    for name, lba in (("first", 1), ("backup", size // sector - 1)):
        try:
            return read_table(read, size, sector, lba)
        except (BrokenTable, OSError) as exc:  # the second: a sector that cannot be read
            problems.append(f"{name} table: {exc}")
    raise BrokenTable("; ".join(problems))


def read_table(
    read: Callable[[int, int], bytes], size: int, sector: int, lba: int
) -> list[Partition]:
    """The partitions of the table whose header lies at *lba*."""
    first, count, entry_size, crc = read_header(read, size, sector, lba)
    table = read(first * sector, count * entry_size)
    if len(table) != count * entry_size or zlib.crc32(table) != crc:
        raise BrokenTable("the CRC of its entries is another")
    found = []
    for number in range(count):
        entry = ENTRY.unpack_from(table, number * entry_size)
        if entry[0] != UNUSED:
            found.append(partition_of(number + 1, entry, size, sector))
    refuse_overlaps(found)
    return found


def read_header(
    read: Callable[[int, int], bytes], size: int, sector: int, lba: int
) -> tuple[int, int, int, int]:
    """First LBA, number, size and CRC of the entries, from the header at *lba*."""
    block = read(lba * sector, sector) if lba > 0 else b""
    if len(block) < HEADER.size or block[:8] != SIGNATURE:
        raise BrokenTable(f"invalid GPT signature at sector {lba}")
    (_, revision, header_size, crc, _, own, _, _, _, _, first, count, entry_size, entries_crc) = (
        HEADER.unpack_from(block)
    )
    if revision != REVISION or not HEADER.size <= header_size <= sector:
        raise BrokenTable(f"revision {revision:#x} with a header of {header_size} bytes")
    head = bytearray(block[:header_size])
    head[CRC_AT : CRC_AT + 4] = bytes(4)
    if zlib.crc32(head) != crc:
        raise BrokenTable("the CRC of its header is another")
    if own != lba:
        raise BrokenTable(f"it says that it lies at sector {own}, and lies at {lba}")
    if entry_size < ENTRY.size or entry_size % 8 or entry_size > ENTRY_BYTES_MAX:
        raise BrokenTable(f"entries of {entry_size} bytes")
    if count * entry_size > TABLE_BYTES_MAX:
        raise BrokenTable(f"{count} entries; {TABLE_BYTES_MAX // entry_size} are the most")
    if first < 2 or first > (size - count * entry_size) // sector:
        raise BrokenTable(f"entries at sector {first} of a disk of {size // sector}")
    return first, count, entry_size, entries_crc


def partition_of(
    number: int, entry: tuple[bytes, bytes, int, int, int, bytes], size: int, sector: int
) -> Partition:
    """The partition that *entry* tells; `BrokenTable` when it does not lie on the disk."""
    kind, guid, first, last, _, name = entry
    if first < 2 or last < first or last >= size // sector:
        raise BrokenTable(
            f"partition {number} has sectors {first} to {last}, the disk has {size // sector}"
        )
    text = name.decode("utf-16-le", errors="replace").partition("\0")[0]
    return Partition(
        number,
        UUID(bytes_le=kind),
        UUID(bytes_le=guid),
        text,
        first * sector,
        (last - first + 1) * sector,
    )


def refuse_overlaps(partitions: list[Partition]) -> None:
    """`BrokenTable` when two of *partitions* share a sector."""
    placed = sorted(partitions, key=lambda partition: partition.offset)
    for one, next_one in itertools.pairwise(placed):
        if next_one.offset - one.offset < one.size:
            raise BrokenTable(f"partitions {one.number} and {next_one.number} overlap")
