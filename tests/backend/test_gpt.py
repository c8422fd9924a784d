import errno
import os
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.backend.gpt import BrokenTable, read_partitions
from tests.backend.disks import Part, disk

SECTOR = 512
PARTS = [Part(b"a" * 1000, "one"), Part(b"b" * 10, "zwei \u00e4")]


def partitions(image: bytes, sector: int = SECTOR):
    return read_partitions(lambda offset, size: image[offset : offset + size], len(image), sector)


@pytest.mark.parametrize("sector", [512, 4096])
def test_partitions_are_told_in_bytes(sector):
    image = disk(PARTS, sector)
    first, second = partitions(image, sector)
    assert (first.number, first.name) == (1, "one")
    assert image[first.offset : first.offset + 1000] == b"a" * 1000
    assert first.size == -(-1000 // sector) * sector
    assert (second.number, second.name) == (2, "zwei \u00e4")


@pytest.mark.parametrize("place", [512, 512 + 16, 1024 + 40])
def test_a_damaged_first_table_is_read_from_its_backup(place):
    image = bytearray(disk(PARTS))
    image[place] ^= 0xFF
    assert [found.name for found in partitions(bytes(image))] == ["one", "zwei \u00e4"]


@pytest.mark.parametrize("unreadable", [SECTOR, 2 * SECTOR])
def test_a_first_table_on_sectors_that_cannot_be_read_is_read_from_its_backup(unreadable):
    image = disk(PARTS)

    def read(offset: int, size: int) -> bytes:
        if offset <= unreadable < offset + size:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return image[offset : offset + size]

    assert len(read_partitions(read, len(image), SECTOR)) == len(PARTS)


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"revision": 2}, "revision 0x2"),
        ({"size": 91}, "header of 91 bytes"),
        ({"size": 513}, "header of 513 bytes"),
        ({"own": 5}, "says that it lies at sector 5"),
        ({"entry_size": 0}, "entries of 0 bytes"),
        ({"entry_size": 1 << 31}, "entries of 2147483648 bytes"),
        ({"count": 0xFFFFFFFF}, "4294967295 entries"),
        ({"first": 1}, "entries at sector 1"),
        ({"first": 1 << 63}, "entries at sector 9223372036854775808"),
        ({"crc": 1}, "CRC of its header"),
        ({"table_crc": 1}, "CRC of its entries"),
    ],
)
def test_a_header_that_cannot_be_is_refused(wrong, what):
    image = disk(PARTS, **wrong)
    without_backup = image[: len(image) - SECTOR] + bytes(SECTOR)
    with pytest.raises(BrokenTable, match=what):
        partitions(without_backup)


@pytest.mark.parametrize(
    ("first", "last"), [(1, 40), (40, 39), (40, 1 << 40), (1 << 63, (1 << 64) - 1)]
)
def test_a_partition_outside_of_the_disk_is_refused(first, last):
    with pytest.raises(BrokenTable, match="partition 1 has sectors"):
        partitions(disk([Part(b"x", "one", first=first, last=last)]))


def test_partitions_that_overlap_are_refused():
    parts = [Part(bytes(2048), "one", first=34, last=37), Part(b"", "two", first=37, last=37)]
    with pytest.raises(BrokenTable, match="partitions 1 and 2 overlap"):
        partitions(disk(parts))


@pytest.mark.parametrize("image", [b"", b"x", bytes(512), bytes(1 << 16), b"EFI PARS" * 200])
def test_a_disk_without_a_table_is_refused(image):
    with pytest.raises(BrokenTable, match="invalid GPT signature"):
        partitions(image)


@given(st.data())
def test_no_damage_is_anything_but_a_table_or_an_error(data):
    """Tables with bytes changed and CRCs made right again, so that the checks behind are met."""
    rng = random.Random(data.draw(st.integers(0, 1 << 32)))
    image = bytearray(disk(PARTS))
    for _ in range(rng.randint(1, 4)):
        image[rng.choice([rng.randrange(512, 604), rng.randrange(1024, 1280)])] = rng.randrange(256)
    fields = struct.unpack_from("<8sIIIIQQQQ16sQIII", image, 512)
    import zlib

    size = fields[11] * fields[12]
    if size < 1 << 20:
        crc = zlib.crc32(image[fields[10] * 512 :][:size]) if fields[10] < 1 << 32 else 0
        struct.pack_into("<I", image, 512 + 88, crc)
    struct.pack_into("<I", image, 512 + 16, 0)
    struct.pack_into("<I", image, 512 + 16, zlib.crc32(image[512 : 512 + min(fields[2], 512)]))
    try:
        found = partitions(bytes(image))
    except BrokenTable:
        return
    assert all(one.offset + one.size <= len(image) for one in found)
