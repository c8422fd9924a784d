import errno
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import BlobCorrupt
from nydusd.base.mapping import Mapping
from nydusd.codec.compression import decompress
from nydusd.rafs.blobmeta import BlobMeta, header_difference, header_matches, plain_file_size
from nydusd.rafs.blobs import BlobFeature, Compressor
from nydusd.rafs.load import load_bootstrap
from tests.rafs.exercise import golden_bootstraps
from tests.rafs.made import BLOB

V1 = BLOB._replace(
    chunk_count=1,
    chunk_size=1 << 24,
    data_size=1 << 39,
    uncompressed_size=1 << 44,
    ci_offset=4000,
    ci_compressed_size=16,
    ci_uncompressed_size=16,
)
V2 = V1._replace(
    features=V1.features | BlobFeature.CHUNK_INFO_V2,
    ci_compressed_size=24,
    ci_uncompressed_size=24,
)
COMPRESSED, ZRAN, BATCH, ENCRYPTED, HAS_CRC = 1, 2, 4, 8, 16
ENCRYPTED_CHUNK, BATCH_CHUNK = 4, 8  # of a place


def entry_v1(plain: int, plain_size: int, stored: int, stored_size: int) -> bytes:
    first = plain | (plain_size - 1 & 0xFFFFF) << 44 | (plain_size - 1 >> 20) << 8
    second = stored | (stored_size - 1 & 0xFFFFF) << 44 | (stored_size - 1 >> 20) << 40
    return struct.pack("<QQ", first, second)


def entry_v2(
    plain: int, plain_size: int, stored: int, stored_size: int, flags: int, data: int = 0
) -> bytes:
    first = plain >> 12 | plain_size - 1 << 32 | flags << 56
    return struct.pack("<QQQ", first, stored | stored_size << 40, data)


def place(entry: bytes, blob=V2):
    return BlobMeta(Mapping.of_bytes(entry), blob).place(0)


def raises(number: int):
    return pytest.raises(OSError, match=os.strerror(number))


sizes = st.integers(1, 1 << 24)


@given(st.integers(0, 2**31 - 1), sizes, st.integers(0, 2**38), sizes)
def test_an_entry_of_16_bytes_gives_back_its_place(
    page: int, plain_size: int, stored: int, stored_size: int
) -> None:
    found = place(entry_v1(page << 12, plain_size, stored, stored_size), V1)

    assert found[:4] == (stored, page << 12, stored_size, plain_size)
    assert found.flags == (COMPRESSED if stored_size != plain_size else 0)


@given(st.integers(0, 2**31 - 1), sizes, st.integers(0, 2**38), st.integers(1, 2**24 - 1))
def test_an_entry_of_24_bytes_gives_back_its_place(
    page: int, plain_size: int, stored: int, stored_size: int
) -> None:
    entry = entry_v2(page << 12, plain_size, stored, stored_size, COMPRESSED | HAS_CRC, 77)

    assert place(entry) == (stored, page << 12, stored_size, plain_size, COMPRESSED | HAS_CRC, 77)


def test_the_entries_of_the_format_description_are_read() -> None:
    first = bytes.fromhex("0000000000300200 0000000000300200")
    assert place(first, V1) == (0, 0, 0x24, 0x24, 0, 0)
    ordinary = bytes.fromhex("02000000 87130010 31000000 00881300 e55cc96b 00000000")
    assert place(ordinary) == (49, 0x2000, 5000, 5000, HAS_CRC, 0x6BC95CE5)


@pytest.mark.parametrize(
    "entry",
    [
        entry_v2(0, 4096, 0, 0, COMPRESSED),
        entry_v2(0, 4096, 0, 100, 0),
        entry_v2(0, 4096, 0, 4096, HAS_CRC, 0),
        entry_v2(0, 4096, V2.data_size, 1, COMPRESSED),
        entry_v2(0, 4096, V2.data_size - 9, 10, COMPRESSED),
        entry_v2((1 << 44) - 4096, 4097, 0, 10, COMPRESSED),
    ],
    ids=["nothing stored", "sizes differ", "crc 0", "behind the data", "over its end", "plain"],
)
def test_an_entry_that_cannot_be_is_an_io_error(entry: bytes) -> None:
    with raises(errno.EIO):
        place(entry)


def test_a_chunk_larger_than_the_image_allows_is_an_io_error() -> None:
    with raises(errno.EIO):
        place(entry_v1(0, 4097, 0, 10), V1._replace(chunk_size=4096))


@pytest.mark.parametrize("flag", [BATCH, ENCRYPTED, ZRAN])
def test_an_entry_of_a_kind_that_the_blob_is_not_is_an_io_error(flag: int) -> None:
    with raises(errno.EIO):
        place(entry_v2(0, 4096, 0, 10, flag | COMPRESSED))


def test_the_batch_of_the_format_description_is_read() -> None:
    entries = bytes.fromhex(
        "00000000 10000005 0000000000000000 00000000 00000000"
        "01000000 1f000005 0000000000000000 11000000 00000000"
    )
    context = struct.pack("<II", 49, 49).ljust(40, b"\0")
    header = struct.pack("<40xQQI", len(entries), len(context), 1).ljust(4096, b"\0")
    blob = V2._replace(features=V2.features | BlobFeature.BATCH, chunk_count=2)
    meta = BlobMeta(Mapping.of_bytes(entries + context), blob, header)

    assert meta.place(0) == (0, 0, 49, 17, BATCH_CHUNK, 0)
    assert meta.place(1) == (0, 0x1000, 49, 32, BATCH_CHUNK, 0)


def test_an_encrypted_entry_says_how_much_is_stored() -> None:
    blob = V2._replace(features=V2.features | BlobFeature.ENCRYPTED)
    assert place(entry_v2(0, 5, 0, 18, ENCRYPTED), blob).flags == ENCRYPTED_CHUNK
    with raises(errno.EIO):
        place(entry_v2(0, 5, 0, 5, ENCRYPTED), blob)


def test_a_chunk_behind_the_table_is_invalid() -> None:
    with raises(errno.EINVAL):
        BlobMeta(Mapping.of_bytes(entry_v1(0, 1, 0, 1)), V1).place(1)


def test_a_table_shorter_than_its_chunks_is_refused() -> None:
    with pytest.raises(BlobCorrupt, match="table of its 1 chunks takes 16 bytes, 15 are there"):
        BlobMeta(Mapping.of_bytes(bytes(15)), V1)


def test_a_table_that_is_cut_under_the_mapping_is_an_io_error(tmp_path: Path) -> None:
    path = tmp_path / "meta"
    path.write_bytes(entry_v1(0, 1, 0, 1) * 512)
    fd = os.open(path, os.O_RDWR)
    meta = BlobMeta(Mapping(fd), V1._replace(chunk_count=512))
    os.close(fd)
    os.truncate(path, 4096)

    assert meta.place(10).compressed_size == 1
    with raises(errno.EIO):
        meta.place(500)


def header(**changed: int) -> bytes:
    fields = {
        "magic": 0xB10BB10B,
        "features": 2,
        "compressor": 0,
        "entries": 1,
        "offset": 4000,
        "stored": 16,
        "plain": 16,
        "contexts": 0,
        "contexts_size": 0,
        "count": 0,
        "magic2": 0xB10BB10B,
    } | changed
    return struct.pack("<IIIIQQQQQI4032xI", *fields.values())


def test_a_header_is_its_blobs_whatever_its_features() -> None:
    assert header_matches(header(features=0xFFFF), V1)


@pytest.mark.parametrize(
    "changed",
    [
        *({name: 5} for name in ("magic", "magic2", "compressor", "entries", "offset")),
        *({name: 5} for name in ("stored", "plain")),
        {"contexts": 17},
        {"contexts": 2**64 - 1, "contexts_size": 2},
    ],
    ids=str,
)
def test_a_header_that_differs_is_not_its_blobs(changed: dict[str, int]) -> None:
    assert not header_matches(header(**changed), V1)


def test_the_difference_is_told() -> None:
    assert header_difference(header(entries=9), V1) == "9 entries for 1 chunks"
    assert header_difference(header()[:-1], V1) == "it has 4095 bytes"
    generated = V1._replace(features=V1.features | BlobFeature.IS_CHUNKDICT_GENERATED)
    assert header_difference(header(entries=9), generated) is None


def test_a_cache_file_has_whole_pages_and_a_header() -> None:
    assert plain_file_size(V1) == 8192
    assert plain_file_size(V1._replace(ci_uncompressed_size=4097)) == 8192 + 4096


# Chunks that share a unit, are read with a key, or whose size is told as more than it is.
OTHER_KINDS = ("batch", "encrypted", "members")


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in golden_bootstraps(6)
        if (path.parent / "blobs").is_dir() and not path.parent.name.endswith(OTHER_KINDS)
    ],
    ids=lambda path: path.parent.name,
)
def test_the_tables_of_an_image_are_read_whole_and_without_gaps(path: Path) -> None:
    for blob in load_bootstrap(path).blobs:
        raw = (path.parent / "blobs" / blob.meta_blob_id).read_bytes()
        stored = raw[blob.ci_offset : blob.ci_offset + blob.ci_compressed_size]
        rest = raw[blob.ci_offset + blob.ci_compressed_size :]
        plain = stored
        if blob.ci_compressor != Compressor.NONE:
            plain = decompress(blob.ci_compressor, stored, blob.ci_uncompressed_size)
        meta = BlobMeta(Mapping.of_bytes(plain), blob)

        places = [meta.place(number) for number in range(meta.count)]

        assert header_difference(rest[:4096], blob) is None
        end = stored_end = 0
        for found in places:
            assert (found.uncompressed_offset, found.compressed_offset) == (end, stored_end)
            end = -(-(end + found.uncompressed_size) // 4096) * 4096
            stored_end += found.compressed_size
        assert (end, stored_end) == (blob.uncompressed_size, blob.data_size)
