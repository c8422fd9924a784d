import contextlib
import errno
import os
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import BlobCorrupt
from nydusd.base.mapping import Mapping
from nydusd.rafs.blobmeta import BlobMeta
from nydusd.rafs.blobs import BlobFeature
from nydusd.rafs.zran_table import Stretch, ZranTable
from tests.rafs.made import BLOB

END = 1 << 30  # bytes of the gzip file
HISTORY = bytes(range(200))
GOOD = {
    "in_offset": 1000,
    "out_offset": 5000,
    "dict_offset": 50,
    "in_len": 700,
    "out_len": 9000,
    "dict_size": 100,
    "ctx_byte": 0xA5,
    "ctx_bits": 3,
    "reserved": 0,
}


def context(**changes: int) -> bytes:
    return struct.pack("<QQQIIIBBH", *(GOOD | changes).values())


def table(*contexts: bytes, before: int = 24) -> ZranTable:
    data = bytes(before) + b"".join(contexts) + HISTORY
    return ZranTable(Mapping.of_bytes(data), before, len(data) - before, len(contexts), END)


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


def test_a_context_tells_its_stretch_and_its_history() -> None:
    found = table(context(), context(in_offset=2000, dict_offset=0, dict_size=0))

    assert found.count == 2
    assert found.at(0) == Stretch(1000, 700, 9000, HISTORY[50:150], 0xA5, 3)
    assert found.at(1) == Stretch(2000, 700, 9000, b"", 0xA5, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"in_len": 0},
        {"in_len": (1 << 24) + (1 << 20) + 1},
        {"in_len": (1 << 16) + 9000 + 2250 + 1},
        {"in_offset": END - 699},
        {"in_offset": (1 << 64) - 1},
        {"in_offset": (1 << 64) - 700},
        {"out_len": 0},
        {"out_len": (1 << 24) + 1},
        {"out_len": 0xFFFFFFFF},
        {"dict_size": 151},
        {"dict_size": 0xFFFFFFFF},
        {"dict_offset": 101},
        {"dict_offset": (1 << 64) - 1},
        {"dict_offset": (1 << 64) - 100},
    ],
)
def test_a_context_that_leaves_its_bounds_is_an_io_error(changes: dict[str, int]) -> None:
    with raises(errno.EIO):
        table(context(**changes)).at(0)


def test_a_history_longer_than_deflate_has_is_an_io_error() -> None:
    data = context(dict_offset=0, dict_size=32769) + bytes(40000)
    with raises(errno.EIO):
        ZranTable(Mapping.of_bytes(data), 0, len(data), 1, END).at(0)


def test_the_last_places_are_within_bounds() -> None:
    assert table(context(in_offset=END - 700)).at(0).in_offset == END - 700
    assert table(context(in_len=(1 << 16) + 9000 + 2250)).at(0).in_size == 76786
    assert table(context(dict_offset=100)).at(0).dictionary == HISTORY[100:]
    assert table(context(dict_offset=200, dict_size=0)).at(0).dictionary == b""


def test_a_context_behind_the_table_is_invalid() -> None:
    with raises(errno.EINVAL):
        table(context()).at(1)


@pytest.mark.parametrize(
    ("offset", "size", "count"),
    [(0, 39, 1), (0, 40, 2), (1, 40, 1), (41, 0, 0), (1 << 63, 40, 1), (0, 40, 0xFFFFFFFF)],
)
def test_a_table_that_is_not_all_there_is_refused(offset: int, size: int, count: int) -> None:
    with pytest.raises(BlobCorrupt, match=f"{count} zran contexts"):
        ZranTable(Mapping.of_bytes(context()), offset, size, count, END)


@given(st.binary(min_size=40, max_size=40))
def test_any_context_is_within_bounds_or_an_io_error(data: bytes) -> None:
    found = ZranTable(Mapping.of_bytes(data + HISTORY), 0, 240, 1, END)
    with contextlib.suppress(OSError):
        stretch = found.at(0)
        assert 0 < stretch.in_size <= END - stretch.in_offset
        assert 0 < stretch.out_size <= 1 << 24
        assert stretch.dictionary in HISTORY


# --- the chunks of a zran blob

COMPRESSED, ZRAN = 1, 2
ZRAN_BLOB = BLOB._replace(
    features=BLOB.features | BlobFeature.CHUNK_INFO_V2 | BlobFeature.ZRAN | BlobFeature.SEPARATE,
    chunk_count=1,
    chunk_size=1 << 20,
    data_size=END,
    uncompressed_size=1 << 30,
    ci_offset=0,
)


def meta(entry: tuple[int, int, int], contexts: int = 1) -> BlobMeta:
    """The CI array of one chunk and of contexts like `GOOD`."""
    data = struct.pack("<QQQ", *entry) + context() * contexts + HISTORY
    header = bytearray(4096)
    struct.pack_into("<II", header, 0, 0xB10BB10B, int(ZRAN_BLOB.features))
    struct.pack_into("<QQI", header, 40, 24, len(data) - 24, contexts)
    struct.pack_into("<I", header, 4092, 0xB10BB10B)
    return BlobMeta(Mapping.of_bytes(data), ZRAN_BLOB, bytes(header))


def entry(size: int, index: int, offset: int, flags: int = COMPRESSED | ZRAN) -> tuple[int, ...]:
    """A chunk at 8192 of the plain blob, *offset* in context *index*; its own stored size is 0."""
    return 2 | size - 1 << 32 | flags << 56, 1200, index << 32 | offset


def test_a_chunk_has_the_stored_place_of_its_whole_context() -> None:
    place = meta(entry(4000, 0, 5000)).place(0)

    assert (place.compressed_offset, place.compressed_size) == (1000, 700)
    assert (place.uncompressed_offset, place.uncompressed_size) == (8192, 4000)


@pytest.mark.parametrize(
    ("size", "index", "offset"),
    [(4001, 0, 5000), (1, 0, 9000), (1, 0, 0xFFFFFFFF), (1, 1, 0), (1, 0xFFFFFFFF, 0)],
)
def test_a_chunk_outside_every_context_is_an_io_error(size: int, index: int, offset: int) -> None:
    with raises(errno.EIO):
        meta(entry(size, index, offset)).place(0)


def test_a_zran_chunk_in_a_blob_of_another_kind_is_an_io_error() -> None:
    blob = ZRAN_BLOB._replace(features=ZRAN_BLOB.features & ~BlobFeature.ZRAN)
    data = struct.pack("<QQQ", *entry(4000, 0, 5000))
    with raises(errno.EIO):
        BlobMeta(Mapping.of_bytes(data), blob).place(0)
