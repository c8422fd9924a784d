import stat
import struct

import pytest

from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode
from tests.build.ondisk import CHUNK, ChunkFields

A, B, C = (bytes([each]) * 32 for each in b"ABC")


def file(first: int, count: int) -> TreeNode:
    node = TreeNode(b"f", stat.S_IFREG)
    node.first_reference, node.chunk_count = first, count
    return node


def table_with(*chunks: tuple[bytes, int], alignment: int = 4096) -> ChunkTable:
    table = ChunkTable(alignment)
    table.claim_own_blob(0)
    table.add_chunks([digest for digest, _ in chunks], [size for _, size in chunks])
    return table


def test_known_chunks_are_referred_to_and_new_ones_reported():
    table = ChunkTable(4096)
    table.claim_own_blob(0)

    assert table.add_chunks([A, B, A], [10, 20, 10]) == [0, 1]
    assert table.add_chunks([B, C], [20, 30]) == [1]

    assert table.own_chunk_count == 3
    assert table.reference_total == 5
    assert table.file_digests(2, 3) == A + B + C


def test_a_digest_of_another_size_is_another_chunk():
    table = table_with((A, 10))

    assert table.add_chunks([A], [11]) == [0]


def test_plain_offsets_are_aligned_and_stored_ones_are_not():
    table = table_with((A, 10), (B, 5000), (C, 7))
    table.store_compressed([4, 0])
    table.store_plain(1)

    found = [ChunkFields(table.record(number)) for number in range(3)]

    assert [each.uncompressed_offset for each in found] == [0, 4096, 12288]
    assert [each.compressed_offset for each in found] == [0, 4, 5004]
    assert [each.compressed_size for each in found] == [4, 5000, 7]
    assert [each.flags for each in found] == [1, 0, 0]
    assert table.uncompressed_end == 16384
    assert table.compressed_end == 5011


def test_the_ci_array_has_one_entry_a_chunk():
    table = table_with((A, 0x24), (B, 16 << 20))
    table.store_compressed([0, (1 << 20) + 1])

    array = table.ci_array()

    assert array[:16].hex() == "00000000003002000000000000300200"
    plain, stored = struct.unpack("<QQ", array[16:])
    assert plain & 0x00000FFFFFFFF000 == 4096
    assert (plain >> 44) | (plain >> 8 & 0xF) << 20 == (16 << 20) - 1
    assert stored & 0xFFFFFFFFFF == 0x24
    assert (stored >> 44) | (stored >> 40 & 0xF) << 20 == 1 << 20


def test_the_chunk_table_is_sorted_and_tells_the_last_use():
    table = table_with((B, 10), (A, 20), (B, 10), (C, 5))

    rows = table.chunk_table([file(0, 2), file(2, 1)], 4096)

    found = [ChunkFields(bytes(rows[at : at + 80])) for at in range(0, len(rows), 80)]
    assert [each.digest for each in found] == [A, B]
    assert [each.file_offset for each in found] == [4096, 0]


def test_a_chunk_of_another_image_is_found_and_can_be_the_first_choice():
    foreign = CHUNK.pack(A, 3, 0, 10, 10, 0, 0, 0, 7, 0)
    table = ChunkTable(4096)
    number = table.add_record(foreign)
    assert table.find(A, 10) == number
    assert table.find(A, 11) is None

    other = table.add_record(CHUNK.pack(A, 5, 0, 10, 10, 0, 0, 0, 7, 0), first_choice=True)

    assert table.find(A, 10) == other
    assert table.add_chunks([A], [10]) == []


def test_checksums_are_recorded_unless_they_are_zero():
    table = ChunkTable(1)
    table.claim_own_blob(0)
    table.add_chunks([A, B], [1, 1], [0x1234, 0])

    found = [ChunkFields(table.record(number)) for number in range(2)]

    assert [(each.flags, each.crc32) for each in found] == [(0x10, 0x1234), (0, 0)]


def test_what_cannot_be_is_refused():
    table = table_with((A, 1))
    with pytest.raises(ValueError, match="digest of 5 bytes"):
        table.add_chunks([b"short"], [1])
    with pytest.raises(ValueError, match="record of 3 bytes"):
        table.add_record(b"abc")
    with pytest.raises(IndexError):
        table.record(9)
    with pytest.raises(IndexError):
        table.refer(9)
    with pytest.raises(IndexError):
        table.store_plain(2)
    with pytest.raises(IndexError):
        table.file_digests(1, 1)
    with pytest.raises(IndexError):
        table.chunk_table([file(1, 1)], 4096)
