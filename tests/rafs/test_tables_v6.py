from dataclasses import replace

import pytest

from nydusd.base.errors import BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobFeature, Compressor
from nydusd.rafs.tables_v6 import read_tables
from tests.rafs.made import BlobV6, ImageV6


def tables_of(image: ImageV6):
    return read_tables(Mapping.of_bytes(image.build()))


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": 1},
        {"checksum": 1},
        {"compat": 1},
        {"bits": 13},
        {"bits": 9},
        {"slots": 1},
        {"inos": 0},
        {"xattr": 1},
        {"incompat": 0x4},
        {"union": 1},
        {"devices": 2},
        {"devices": 300},
        {"slotoff": 12},
    ],
    ids=str,
)
def test_a_superblock_field_that_is_not_ours_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(BootstrapError, match="v6 bootstrap"):
        tables_of(ImageV6(superblock=changed))


@pytest.mark.parametrize(
    "changed",
    [
        {"flags": 0x8},
        {"flags": 0x1},
        {"flags": 0xB},
        {"flags": 0x9 | 1 << 40},
        {"flags": 0x209},
        {"blobs": 4096 + 8},
        {"blobs": 0},
        {"blobs": 1 << 40},
        {"blobs_size": 255},
        {"blobs_size": 512},
        {"chunk_size": 0x800},
        {"chunk_size": 0x3000},
        {"chunk_size": 0x2000000},
        {"chunks": 8192, "chunks_size": 81},
        {"chunks": 8193, "chunks_size": 80},
        {"chunks": 4096, "chunks_size": 80},
        {"chunks": 8192, "chunks_size": 80 << 40},
        {"prefetch": 4096, "prefetch_size": 4},
        {"prefetch": 8192, "prefetch_size": 3},
        {"prefetch": 2**64 - 4, "prefetch_size": 8},
    ],
    ids=str,
)
def test_an_extended_superblock_field_out_of_range_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(BootstrapError, match="v6 bootstrap"):
        tables_of(ImageV6(extended=changed))


GOOD = BlobV6()


@pytest.mark.parametrize(
    "blob",
    [
        replace(GOOD, index=1),
        replace(GOOD, chunk_size=0x2000),
        replace(GOOD, chunk_count=2**24 + 1),
        replace(GOOD, compressor=4),
        replace(GOOD, features=0x40000000),
        replace(GOOD, features=0x40000041),
        replace(GOOD, features=0x40001001),
        replace(GOOD, features=0xC0000001),
        replace(GOOD, features=0x40000081),
        replace(GOOD, compressed_size=2**40),
        replace(GOOD, uncompressed_size=2**44),
        replace(GOOD, ci=(0, 17, 16)),
        replace(GOOD, ci=(0, 32, 32)),
        replace(GOOD, features=0x40000005, ci=(0, 32, 32)),
        replace(GOOD, features=0x40000085, ci=(0, 16, 16)),
        replace(GOOD, ci=(2**40, 16, 16)),
        replace(GOOD, blob_id=b""),
        replace(GOOD, blob_id=b"../etc/passwd"),
        replace(GOOD, blob_id=b".."),
        replace(GOOD, blob_id=b"a\0b"),
        replace(GOOD, blob_id=b"\xff\xfe"),
        replace(GOOD, blob_id=b"a\nb"),
    ],
    ids=str,
)
def test_a_blob_table_entry_that_cannot_be_is_refused(blob: BlobV6) -> None:
    with pytest.raises(BootstrapError, match="v6 bootstrap"):
        tables_of(ImageV6(blobs=[blob]))


def test_two_devices_with_one_name_are_refused() -> None:
    with pytest.raises(BootstrapError, match="repeats"):
        tables_of(ImageV6(blobs=[GOOD, GOOD]))


def test_a_file_of_half_a_block_is_refused() -> None:
    data = ImageV6().build()

    for size in (0, 1152, 4095, len(data) - 1):
        with pytest.raises(BootstrapError):
            read_tables(Mapping.of_bytes(data[:size]))


def test_an_image_without_blobs_has_an_empty_table() -> None:
    assert tables_of(ImageV6(blobs=[])).blobs == []
    with pytest.raises(BootstrapError, match="without a blob"):
        tables_of(ImageV6(blobs=[], superblock={"blocks": 7}))


def test_an_old_empty_image_has_a_prefetch_size_without_a_table() -> None:
    image = ImageV6(blobs=[], extended={"prefetch": 0, "prefetch_size": 8})

    assert tables_of(image).prefetch_inos == []


def test_empty_rows_of_the_prefetch_table_are_left_out() -> None:
    assert tables_of(ImageV6(prefetch=[200, 0, 128, 0])).prefetch_inos == [200, 128]


def test_a_blob_is_told_with_its_features_and_the_end_of_its_data() -> None:
    blob = BlobV6(features=0x50000001, ci=(1024, 16, 16), compressed_size=9999, compressor=3)

    (found,) = tables_of(ImageV6(blobs=[blob])).blobs

    assert found.compressor == Compressor.ZSTD
    assert found.features & BlobFeature.HAS_TAR_HEADER
    assert (found.data_size, found.compressed_size) == (512, 9999)
    assert (found.ci_offset, found.ci_uncompressed_size) == (1024, 16)
    assert found.cipher_key == b""
