import multiprocessing
import os
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import CacheError
from nydusd.cache.chunkmap import (
    ChunkMap,
    bitmap_bytes,
    both,
    either,
    open_chunk_map,
    promises_data,
    view_chunk_map,
)

HEADER = struct.pack("<4I", 0x424D4150, 1, 0x434D4150, 0)


def make(path, bits: bytes, header: bytes = HEADER) -> None:
    path.write_bytes(header.ljust(4096, b"\0") + bits)


def test_a_new_file_has_the_reference_s_header_and_no_bits(tmp_path):
    path = tmp_path / "map"
    chunks = open_chunk_map(path, 17)
    assert path.read_bytes() == HEADER.ljust(4096, b"\0") + bytes(3)
    assert chunks.ready_count() == 0
    assert chunks.shared


def test_bits_are_stored_most_significant_first(tmp_path):
    path = tmp_path / "map"
    chunks = open_chunk_map(path, 16)
    for index in range(4, 10):
        chunks.mark_ready(index)
    assert path.read_bytes()[4096:] == b"\x0f\xc0"


@given(ready=st.sets(st.integers(0, 99)))
def test_bits_of_a_file_are_read_as_they_stand(tmp_path_factory, ready):
    path = tmp_path_factory.mktemp("map") / "map"
    bits = bytearray(13)
    for index in ready:
        bits[index >> 3] |= 0x80 >> (index & 7)
    make(path, bytes(bits))
    chunks = open_chunk_map(path, 100)
    assert {index for index in range(110) if chunks.ready(index)} == ready
    assert {index for index in range(110) if view_chunk_map(path, 100).ready(index)} == ready


def test_a_full_map_gets_its_marker_at_the_next_open(tmp_path):
    path = tmp_path / "map"
    chunks = open_chunk_map(path, 9)
    for index in range(9):
        chunks.mark_ready(index)
    assert path.read_bytes()[12:16] == bytes(4)
    assert open_chunk_map(path, 9).ready_count() == 9
    assert path.read_bytes()[12:16] == b"PAMM"


@given(count=st.integers(1, 600_000), missing=st.integers(0, 599_999))
def test_one_missing_chunk_keeps_the_marker_away(tmp_path_factory, count, missing):
    path = tmp_path_factory.mktemp("map") / "map"
    bits = bytearray(b"\xff" * bitmap_bytes(count))
    missing %= count
    bits[missing >> 3] &= ~(0x80 >> (missing & 7)) & 0xFF
    make(path, bytes(bits))
    assert not open_chunk_map(path, count).ready(missing)
    assert path.read_bytes()[12:16] == bytes(4)
    bits[missing >> 3] |= 0x80 >> (missing & 7)
    bits[-1] &= 0xFF00 >> ((count - 1) % 8 + 1) & 0xFF
    make(path, bytes(bits))
    open_chunk_map(path, count)
    assert path.read_bytes()[12:16] == b"PAMM"


def test_a_map_of_a_hostile_image_is_opened_in_little_memory(tmp_path):
    path = tmp_path / "map"
    open_chunk_map(path, 0xFFFFFFFF)
    tracemalloc.start()
    try:
        assert not promises_data(path)
        assert not open_chunk_map(path, 0xFFFFFFFF).ready(7)
        assert not view_chunk_map(path, 0xFFFFFFFF).ready(7)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_the_marker_makes_everything_ready_whatever_the_bits(tmp_path):
    path = tmp_path / "map"
    make(path, bytes(2), HEADER[:12] + b"PAMM")
    chunks = open_chunk_map(path, 12)
    assert chunks.ready_count() == 12
    assert not chunks.ready(12)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (HEADER.ljust(4096, b"\0") + bytes(3), "4099 bytes, 4098"),
        (HEADER[:100], "16 bytes, 4098"),
        (b"x" * 4098, "not a chunk map"),
        (bytes(4097) + b"\1", "not a chunk map"),
        ((HEADER[:8] + b"xxxx").ljust(4098, b"\0"), "broken header"),
    ],
)
def test_another_s_file_is_refused_and_left_alone(tmp_path, content, what):
    path = tmp_path / "map"
    path.write_bytes(content)
    with pytest.raises(CacheError, match=what):
        open_chunk_map(path, 12)
    assert path.read_bytes() == content


def test_a_file_whose_creator_died_gets_its_header(tmp_path):
    path = tmp_path / "map"
    path.write_bytes(bytes(4098))
    open_chunk_map(path, 12)
    assert path.read_bytes()[:16] == HEADER


def test_claims_are_had_once_and_given_up():
    chunks = ChunkMap(10)
    assert chunks.try_claim(3)
    assert not chunks.try_claim(3)
    assert chunks.try_claim(4)
    chunks.give_up(3)
    assert chunks.try_claim(3)


def test_nothing_lies_past_the_last_chunk():
    chunks = ChunkMap(10)
    assert not chunks.try_claim(10)
    assert not chunks.ready(1 << 31)
    chunks.mark_ready(1 << 31)
    chunks.give_up(1 << 31)
    assert chunks.ready_count() == 0


def test_a_file_cut_under_the_map_promises_nothing_and_leaves_what_is_known(tmp_path):
    path = tmp_path / "map"
    open_chunk_map(path, 40000).mark_ready(0)
    chunks = open_chunk_map(path, 40000)
    chunks.mark_ready(1)
    os.truncate(path, 0)
    assert not chunks.ready(0)
    assert not chunks.shared
    chunks.mark_ready(2)
    assert chunks.ready(1)
    assert chunks.ready(2)
    assert path.stat().st_size == 0


def test_promises_of_others_are_not_known_until_somebody_has_looked(tmp_path):
    path = tmp_path / "map"
    mine, other = open_chunk_map(path, 16), open_chunk_map(path, 16)
    other.mark_ready(3)
    mine.mark_ready(4)
    assert mine.ready(3)
    assert not mine.known_ready(3)
    assert mine.known_ready(4)
    mine.look_again()
    assert mine.ready(4)
    assert not mine.known_ready(4)
    mine.keep_to_itself()
    mine.mark_ready(5)
    assert not mine.ready(4)
    assert mine.ready(5)
    assert not other.ready(5)


@pytest.mark.parametrize("first", ["new", "old"])
def test_both_names_of_the_map_are_one_file_where_there_was_one(tmp_path, first):
    new, old = tmp_path / "new", tmp_path / "old"
    open_chunk_map(tmp_path / first, 16).mark_ready(9)
    chunks = open_chunk_map(new, 16, old)
    assert new.samefile(old)
    chunks.mark_ready(3)
    assert old.read_bytes()[4096:] == b"\x10\x40"


def test_two_maps_of_one_data_file_are_both_read_and_written(tmp_path):
    new, old = tmp_path / "new", tmp_path / "old"
    daemons = [open_chunk_map(new, 16), open_chunk_map(old, 16)]
    daemons[0].mark_ready(1)
    daemons[1].mark_ready(2)
    chunks = open_chunk_map(new, 16, old)
    assert [chunks.ready(index) for index in range(4)] == [False, True, True, False]
    assert chunks.promises() == b"\x60\0"
    chunks.mark_ready(3)
    assert daemons[0].ready(3)
    assert daemons[1].ready(3)


def test_a_map_that_is_only_read_keeps_new_bits_to_itself(tmp_path):
    path = tmp_path / "map"
    other = open_chunk_map(path, 16)
    chunks = view_chunk_map(path, 16)
    chunks.mark_ready(1)
    chunks.add_promises(b"\xff\xff")
    assert not other.ready(1)
    other.mark_ready(2)
    assert chunks.ready(2)


@pytest.mark.parametrize("size", [None, 0, 4098])
def test_a_map_that_is_missing_or_only_begun_promises_nothing(tmp_path, size):
    path = tmp_path / "map"
    if size is not None:
        path.write_bytes(bytes(size))
    assert view_chunk_map(path, 12).promises() == b""


def test_bitmaps_are_joined_and_cut():
    assert either(b"\x01\x80", b"\x10\x80") == b"\x11\x80"
    assert both(b"\x01\x80", b"\x11\x00") == b"\x01\x00"


def test_a_forgotten_map_leaves_the_file_to_the_others(tmp_path):
    path = tmp_path / "map"
    mine, other = open_chunk_map(path, 16), open_chunk_map(path, 16)
    mine.mark_ready(5)
    mine.forget()
    assert not mine.ready(5)
    mine.mark_ready(6)
    assert other.ready(5)
    assert not other.ready(6)


def test_a_map_in_memory_forgets_too():
    chunks = ChunkMap(100)
    chunks.mark_ready(5)
    chunks.forget()
    assert chunks.ready_count() == 0


def test_promises_are_bits_or_the_marker(tmp_path):
    path = tmp_path / "map"
    assert not promises_data(path)
    make(path, bytes(2))
    assert not promises_data(path)
    make(path, b"\0\1")
    assert promises_data(path)
    make(path, bytes(2), HEADER[:12] + b"PAMM")
    assert promises_data(path)


def mark_every(path: str, count: int, first: int, step: int) -> None:
    chunks = open_chunk_map(path, count)
    for index in range(first, count, step):
        chunks.mark_ready(index)


def test_processes_that_share_a_file_lose_no_bit(tmp_path):
    path = tmp_path / "map"
    count = 20000
    chunks = open_chunk_map(path, count)
    context = multiprocessing.get_context("spawn")
    workers = [
        context.Process(target=mark_every, args=(str(path), count, first, 4)) for first in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert chunks.ready_count() == count
    assert path.read_bytes()[4096:] == b"\xff" * bitmap_bytes(count)
