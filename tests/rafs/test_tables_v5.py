import struct

import pytest

from nydusd.base.errors import BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import Compressor, Digester
from nydusd.rafs.tables_v5 import read_tables
from tests.rafs.made import ImageV5, root_v5


def tables_of(image: ImageV5):
    return read_tables(Mapping.of_bytes(image.build()))


def image(**other: object) -> ImageV5:
    return ImageV5([root_v5(0)], **other)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "changed",
    [
        {"magic": 1},
        {"version": 0x400},
        {"size": 4096},
        {"chunk_size": 0x1800},
        {"flags": 0x9 | 1 << 32},
        {"inodes": 2},
        {"entries": 0, "inodes": 0},
        {"entries": 2**29},
        {"entries": 2**20},
        {"inode_table": 4096},
        {"inode_table": 8196},
        {"inode_table": 2**64 - 8},
        {"prefetch_table": 8192, "prefetch_entries": 1},
        {"prefetch_table": 2**63, "prefetch_entries": 1},
        {"blob_table": 8192},
        {"blob_table_size": 2**31},
        {"extended": 8192},
        {"extended": 8200, "extended_entries": 2**32 - 1},
    ],
    ids=str,
)
def test_a_superblock_field_that_cannot_be_is_refused(changed: dict[str, int]) -> None:
    with pytest.raises(BootstrapError, match="v5 bootstrap"):
        tables_of(image(superblock=changed))


def test_a_file_without_tables_is_refused() -> None:
    data = image().build()

    for size in (0, 8, 8192, 8200):
        with pytest.raises(BootstrapError):
            read_tables(Mapping.of_bytes(data[:size]))


@pytest.mark.parametrize("blob_id", [b"", b"a/b", b"..", b"\xff", b"a\nb", b"i" * 256])
def test_an_id_that_is_no_file_name_is_refused(blob_id: bytes) -> None:
    table = struct.pack("<II", 0, 0) + blob_id + b"\0" + struct.pack("<II", 0, 0) + b"good-one"

    with pytest.raises(BootstrapError, match="id of blob"):
        tables_of(image(blob_table=table, extended=b""))


def test_blobs_are_told_apart_at_zero_bytes() -> None:
    table = struct.pack("<II", 0, 7) + b"one\0" + struct.pack("<II", 0, 8) + b"second"
    extended = struct.pack("<IIQQ40x", 3, 0x50000000, 5000, 4000) * 2

    first, second = tables_of(image(blob_table=table, extended=extended)).blobs

    assert (first.blob_id, first.prefetch_size) == ("one", 7)
    assert (second.blob_id, second.prefetch_size) == ("second", 8)
    assert (second.chunk_count, second.uncompressed_size, second.compressed_size) == (3, 5000, 4000)
    assert second.data_size == 4000 - 512
    assert second.has_chunk_map


def test_an_extended_table_with_too_few_entries_is_refused() -> None:
    table = struct.pack("<II", 0, 7) + b"one\0" + struct.pack("<II", 0, 8) + b"second"

    with pytest.raises(BootstrapError, match="extended blob table"):
        tables_of(image(blob_table=table))


def test_without_an_extended_table_there_is_no_chunk_map() -> None:
    (blob,) = tables_of(image(extended=b"")).blobs

    assert (blob.chunk_count, blob.has_chunk_map, blob.data_size) == (0, False, 0)


def test_the_prefetch_table_ends_at_a_zero() -> None:
    assert tables_of(image(prefetch=[1, 5, 0, 7])).prefetch_inos == [1, 5]


@pytest.mark.parametrize(
    ("flags", "compressor", "digester"),
    [
        (0, Compressor.LZ4_BLOCK, Digester.BLAKE3),
        (0x1 | 0x2 | 0xC, Compressor.NONE, Digester.BLAKE3),
        (0x40 | 0x80 | 0x8, Compressor.GZIP, Digester.SHA256),
        (0x80 | 0x4, Compressor.ZSTD, Digester.BLAKE3),
    ],
)
def test_the_first_algorithm_of_several_counts(
    flags: int, compressor: Compressor, digester: Digester
) -> None:
    (blob,) = tables_of(image(flags=flags)).blobs

    assert (blob.compressor, blob.digester) == (compressor, digester)
