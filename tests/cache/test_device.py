import errno
import logging
import os
import resource
import struct
import subprocess
import threading

import pytest
import zstandard

from nydusd.base.errors import CacheError
from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, device, hole

COMPRESSORS = [Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD]
SIZES = [1, 4095, 4096, 4097, 70000, 100, 1 << 20, 3]


def chunks(sizes=SIZES) -> list[bytes]:
    """Chunks that shrink a little and differ from each other."""
    return [(f"{i:5}".encode() * (size // 5 + 1))[:size] for i, size in enumerate(sizes)]


MAP_FILES = ["blob.data.chunk_map", "chunk_map", "durable_map"]


def files(folder):
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name.partition(".")[2] for path in found)


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_read_is_what_was_packed_cold_warm_and_reopened(
    tmp_path, version, compressor, compressed
):
    blob = MadeBlob(chunks(), version, compressor)
    backend = MadeBackend(blob)
    for _ in range(2):
        with_cache = device(blob, backend, tmp_path, 1 << 20, compressed=compressed)
        for _ in range(2):
            assert read_spans(with_cache, blob.spans()) == blob.content
        with_cache.close()
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    name = "blob.raw" if compressed else "blob.data"
    expected = [name, *MAP_FILES] + (["blob.meta"] if version == 6 else [])
    assert files(tmp_path) == sorted(expected)
    kept = (tmp_path / f"{blob.blob_id}.{name}").read_bytes()
    assert kept == (bytes(blob.data[: blob.data_size]) if compressed else blob.plain)


def test_the_cache_files_are_those_of_the_format(tmp_path):
    blob = MadeBlob(chunks([4096] * 10))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    read_spans(with_cache, blob.spans()[4:])
    kept = (tmp_path / f"{blob.blob_id}.blob.data.chunk_map").read_bytes()
    assert kept == struct.pack("<4I", 0x424D4150, 1, 0x434D4150, 0).ljust(4096, b"\0") + b"\x0f\xc0"
    meta = (tmp_path / f"{blob.blob_id}.blob.meta").read_bytes()
    assert meta[: len(blob.ci)] == blob.ci
    assert meta[4096:] == blob.data[-4096:]
    with_cache.close()


def test_a_hit_asks_nobody_and_is_counted(tmp_path):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    read_spans(with_cache, blob.spans())
    requests = len(backend.requests)
    before = with_cache.snapshot()
    assert read_spans(with_cache, [blob.span(4, 100, 200)]) == blob.chunks[4][100:300]
    after = with_cache.snapshot()
    assert len(backend.requests) == requests
    assert after["hits"] == before["hits"] + 1
    assert after["hit_bytes"] == before["hit_bytes"] + 200
    assert after["misses"] == before["misses"]
    with_cache.close()


def test_holes_are_zeros_between_what_is_there_and_what_is_fetched(tmp_path):
    blob = MadeBlob(chunks([4096, 8192]))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    read_spans(with_cache, [blob.span(0)])
    spans = [hole(100), blob.span(0, 1, 10), hole(200000), blob.span(1, 8000, 192), hole(1)]
    expected = bytes(100) + blob.chunks[0][1:11] + bytes(200000) + blob.chunks[1][8000:] + bytes(1)
    assert read_spans(with_cache, spans) == expected
    assert read_spans(with_cache, spans) == expected
    assert read_spans(with_cache, [hole(5)]) == bytes(5)
    with_cache.close()


def test_one_chunk_twice_in_a_read_is_fetched_once(tmp_path):
    blob = MadeBlob(chunks([4096]))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, [blob.span(0), blob.span(0)]) == blob.chunks[0] * 2
    assert len(backend.data_requests(blob)) == 1
    with_cache.close()


def test_without_a_batch_size_exactly_the_chunks_of_the_read_are_fetched(tmp_path):
    blob = MadeBlob(chunks([4096] * 20), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 0)
    read_spans(with_cache, [blob.span(3), blob.span(4), blob.span(9)])
    assert backend.data_requests(blob) == [(3 * 4096, 8192), (9 * 4096, 4096)]
    with_cache.close()


def test_a_batch_brings_the_chunks_behind_along(tmp_path):
    blob = MadeBlob(chunks([4096] * 100), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 160 << 10)
    read_spans(with_cache, [blob.span(30)])
    assert backend.data_requests(blob) == [(30 * 4096, 160 << 10)]
    read_spans(with_cache, blob.spans()[30:70])
    assert len(backend.data_requests(blob)) == 1
    # what is here already is trimmed from the end of the next one
    read_spans(with_cache, [blob.span(0)])
    assert backend.data_requests(blob)[1] == (0, 30 * 4096)
    with_cache.close()


def test_v5_brings_along_what_the_bootstrap_says_follows(tmp_path):
    blob = MadeBlob(chunks([4096] * 10), 5, Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(2)], blob.spans()[3:6]) == blob.chunks[2]
    assert backend.data_requests(blob) == [(8192, 16384)]
    with_cache.close()


def test_chunks_that_shrink_a_lot_do_not_bring_everything_along(tmp_path):
    blob = MadeBlob([bytes(1 << 20)] * 30)
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    read_spans(with_cache, [blob.span(0)])
    assert with_cache.snapshot()["kept_bytes"] <= 6 << 20  # four batches, and what is read
    with_cache.close()


def test_many_readers_of_one_chunk_make_one_request(tmp_path):
    blob = MadeBlob(chunks([100000] * 4))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    backend.gate.clear()
    results = []
    readers = [
        threading.Thread(target=lambda: results.append(read_spans(with_cache, blob.spans())))
        for _ in range(8)
    ]
    for reader in readers:
        reader.start()
    assert backend.started.wait(20)
    backend.gate.set()
    for reader in readers:
        reader.join()
    assert results == [blob.content] * 8
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    with_cache.close()


def test_readers_of_parts_leave_each_chunk_to_one_of_them(tmp_path):
    blob = MadeBlob(chunks([5000] * 64), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 16384)
    failures = []

    def read(number):
        for i in range(64):
            first = (i * 7 + number * 13) % 60
            got = read_spans(with_cache, blob.spans()[first : first + 4])
            if got != b"".join(blob.chunks[first : first + 4]):
                failures.append((number, first))

    readers = [threading.Thread(target=read, args=(number,)) for number in range(6)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not failures
    assert with_cache.snapshot()["kept_bytes"] >= blob.data_size
    assert sum(size for _, size in backend.data_requests(blob)) <= blob.data_size * 1.5
    with_cache.close()


def test_a_reader_that_waited_too_long_fetches_what_somebody_else_has_claimed(tmp_path):
    blob = MadeBlob(chunks([4096]))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    assert with_cache.blobs[0].chunks.try_claim(0)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert with_cache.blobs[0].chunks.ready(0)
    assert not with_cache.blobs[0].chunks.try_claim(0)  # still its owner's
    with_cache.close()


@pytest.mark.parametrize("version", [5, 6])
def test_without_a_cache_every_read_is_a_fetch(version):
    blob = MadeBlob(chunks(), version)
    backend = MadeBackend(blob)
    without = device(blob, backend, None, 1 << 20)
    for _ in range(2):
        assert read_spans(without, blob.spans()) == blob.content
    assert len(backend.data_requests(blob)) == 2 * len(set(backend.data_requests(blob)))
    without.close()


# damage


@pytest.mark.parametrize("version", [5, 6])
def test_a_corrupt_chunk_is_eio_for_its_reader_alone_and_logged_once(tmp_path, version, caplog):
    blob = MadeBlob(chunks([4096] * 4), version, Compressor.NONE)
    blob.data[2 * 4096 + 7] ^= 1
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    with caplog.at_level(logging.WARNING, "nydusd"):
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error") as caught:
                read_spans(with_cache, [blob.span(2)])
            assert caught.value.errno == errno.EIO
    assert [record.getMessage() for record in caplog.records] == [
        f"blob {blob.blob_id}: chunk 2: its CRC-32C is not the promised one"
    ]
    assert read_spans(with_cache, [blob.span(1), blob.span(3)]) == blob.chunks[1] + blob.chunks[3]
    assert with_cache.blobs[0].chunks.try_claim(2)  # given up
    with_cache.close()


def test_the_good_chunks_of_a_range_with_a_corrupt_one_are_kept(tmp_path):
    blob = MadeBlob(chunks([4096] * 4), 6, Compressor.NONE)
    blob.data[2 * 4096 + 7] ^= 1
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(0)]) == blob.chunks[0]
    assert [with_cache.blobs[0].chunks.ready(i) for i in range(4)] == [True, True, False, True]
    kept = (tmp_path / f"{blob.blob_id}.blob.data").read_bytes()
    assert kept[8192:12288] == bytes(4096)
    with_cache.close()


def test_a_frame_that_inflates_a_thousandfold_is_eio(tmp_path, caplog):
    blob = MadeBlob([bytes(range(256)) * 64, b"x" * 5000], with_crc=False)
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))[: blob.places[0][1]]
    blob.data[: len(bomb)] = bomb
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, [blob.span(0)])
    assert "do not decode" in caplog.text
    with_cache.close()


def windows(folder, *needed: int) -> list[tuple[int, int]]:
    """`(first, count)` of the chunks asked for when of 128 *needed* are read; a batch is 32."""
    blob = MadeBlob(chunks([4096] * 128), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, folder, 128 << 10)
    for index in needed:
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    with_cache.close()
    return [(offset // 4096, size // 4096) for offset, size in backend.data_requests(blob)]


def test_what_would_be_left_of_a_gap_comes_along(tmp_path):
    # Half a batch, 16 chunks, is the most that a request grows by for it.
    assert windows(tmp_path / "after", 80) == [(80, 48)]
    assert windows(tmp_path / "too many after", 79) == [(79, 32)]
    assert windows(tmp_path / "before", 0, 48) == [(0, 32), (32, 48)]
    assert windows(tmp_path / "too many before", 0, 49) == [(0, 32), (49, 32)]


def test_a_window_that_meets_what_is_here_grows_to_the_other_side(tmp_path):
    assert windows(tmp_path / "gap", 0, 64, 60) == [(0, 32), (64, 32), (32, 32)]
    assert windows(tmp_path / "end", 127) == [(96, 32)]
    # 32 to 58 stay missing: one batch is the most that 90 brings along.
    assert windows(tmp_path / "long", 0, 91, 90) == [(0, 32), (91, 37), (59, 32)]


def test_a_window_does_not_grow_over_what_is_here(tmp_path):
    assert windows(tmp_path, 20, 80, 60) == [(20, 32), (80, 48), (52, 28)]


def test_a_chunk_longer_than_a_request_brings_nothing_along(tmp_path):
    blob = MadeBlob(chunks([4096] * 40 + [300_000] + [4096] * 40), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 128 << 10)
    assert read_spans(with_cache, [blob.span(40)]) == blob.chunks[40]
    assert backend.data_requests(blob) == [(40 * 4096, 300_000)]
    with_cache.close()


def test_what_comes_along_is_bounded_when_chunks_shrink_well(tmp_path):
    blob = MadeBlob([bytes([index]) * 100_000 for index in range(60)])
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 128 << 10)
    assert read_spans(with_cache, [blob.span(50)]) == blob.chunks[50]
    # Four batches and a chunk, though the stored bytes of all of them are a few thousand.
    assert 2 <= with_cache.blobs[0].chunks.ready_count() <= 6
    with_cache.close()


def test_a_failed_range_is_tried_again_with_what_is_needed(tmp_path):
    blob = MadeBlob(chunks([4096] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    backend.broken = [(3 * 4096, 4 * 4096)]
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(1)]) == blob.chunks[1]
    assert backend.data_requests(blob) == [(0, 10 * 4096), (4096, 4096)]
    assert with_cache.blobs[0].chunks.try_claim(2)  # what came along is given up
    with_cache.close()


def test_a_backend_that_fails_is_eio_and_gives_the_claims_up(tmp_path, caplog):
    blob = MadeBlob(chunks([4096] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    with_cache.blobs[0].load_description()
    backend.broken = [(0, 1 << 30)]
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, [blob.span(1)])
    backend.broken = []
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_span_that_the_ci_array_contradicts_is_eio(tmp_path, caplog):
    blob = MadeBlob(chunks([4096] * 3))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    read_spans(with_cache, blob.spans())
    for span in (
        blob.span(1)._replace(uncompressed_offset=0),
        blob.span(1)._replace(offset=1),
        blob.span(1)._replace(length=4097),
        blob.span(1)._replace(chunk_index=3),
        blob.span(1)._replace(blob_index=1),
        blob.span(1)._replace(flags=4),
    ):
        for _ in range(2):
            with pytest.raises(OSError, match="error"):
                read_spans(with_cache, [span])
    assert 0 < len(caplog.records) == len({record.getMessage() for record in caplog.records})
    assert all("chunk" in record.getMessage() for record in caplog.records)
    with_cache.close()


@pytest.mark.parametrize(
    "change",
    [
        {"compressed_offset": 1 << 63},
        {"uncompressed_offset": 1 << 63},
        {"uncompressed_offset": 1 << 40},
        {"compressed_size": 1 << 31},
        {"uncompressed_size": 1 << 31},
        {"compressed_offset": 1 << 40},
        {"chunk_index": 77},
        {"chunk_flags": 4},
        {"crc32": 1},
    ],
)
def test_hostile_places_of_v5_are_errors(tmp_path, caplog, change):
    blob = MadeBlob(chunks([4096] * 3), 5)
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    caplog.set_level(logging.CRITICAL, "nydusd")
    with pytest.raises(OSError):  # noqa: PT011 - EIO or ENOTSUP
        read_spans(with_cache, [blob.span(1)._replace(**change)])
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


# validation


@pytest.mark.parametrize("compressed", [False, True])
def test_with_validation_a_damaged_cache_is_fetched_again_and_repaired(tmp_path, compressed):
    blob = MadeBlob(chunks([5000] * 3), 5, Compressor.ZSTD)
    backend = MadeBackend(blob)
    kept = {"validate": True, "compressed": compressed}
    with_cache = device(blob, backend, tmp_path, 0, **kept)
    assert read_spans(with_cache, blob.spans()) == blob.content
    path = tmp_path / f"{blob.blob_id}.blob.{'raw' if compressed else 'data'}"
    good = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(blob.places[1][0] + 9 if compressed else blob.places[1][2] + 9)
        file.write(b"!")
    requests = len(backend.requests)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert len(backend.requests) == requests + 1
    assert path.read_bytes() == good
    with_cache.close()


def test_validation_finds_what_has_no_checksum(tmp_path, caplog):
    blob = MadeBlob(chunks([5000] * 3), 5, Compressor.NONE, with_crc=False)
    blob.data[5003] ^= 1
    with_cache = device(blob, MadeBackend(blob), tmp_path, validate=True)
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, [blob.span(1)])
    assert "digest" in caplog.text
    with_cache.close()
    without = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(without, [blob.span(1)]) != blob.chunks[1]
    without.close()


def test_without_a_chunk_map_kept_bytes_count_when_their_digest_matches(tmp_path):
    blob = MadeBlob(chunks([5000] * 3), 5, has_chunk_map=False)
    backend = MadeBackend(blob)
    for use_chunk_map in (True, False):
        with_cache = device(blob, backend, tmp_path, use_chunk_map=use_chunk_map)
        assert read_spans(with_cache, blob.spans()) == blob.content
        with_cache.close()
    assert len(backend.requests) == 1
    path = tmp_path / f"{blob.blob_id}.blob.data"
    assert files(tmp_path) == ["blob.data"]
    path.write_bytes(b"?" + path.read_bytes()[1:])
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert backend.requests[1:] == [(0, blob.places[0][1])]
    with_cache.close()


# files that others change


def test_a_deleted_data_file_takes_its_map_along(tmp_path, caplog):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    first = device(blob, backend, tmp_path)
    read_spans(first, blob.spans())
    (tmp_path / f"{blob.blob_id}.blob.data").unlink()
    second = device(blob, backend, tmp_path)
    assert "promises more" in caplog.text
    assert read_spans(second, blob.spans()) == blob.content
    requests = len(backend.requests)
    assert read_spans(first, blob.spans()) == blob.content  # goes on with its own files
    assert len(backend.requests) == requests
    first.close()
    second.close()


def test_a_data_file_made_anew_under_an_old_map_is_not_believed(tmp_path, caplog):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    first = device(blob, backend, tmp_path)
    read_spans(first, blob.spans())
    first.close()
    path = tmp_path / f"{blob.blob_id}.blob.data"
    path.unlink()
    path.touch()
    os.truncate(path, len(blob.plain))
    second = device(blob, backend, tmp_path)
    assert "promises more" in caplog.text
    assert read_spans(second, blob.spans()) == blob.content
    second.close()


def test_a_data_file_cut_under_a_reader_is_fetched_again_never_zeros(tmp_path):
    blob = MadeBlob(chunks([100000] * 8))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    read_spans(with_cache, blob.spans())
    path = tmp_path / f"{blob.blob_id}.blob.data"
    os.truncate(path, 4096)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert read_spans(with_cache, [blob.span(5), blob.span(0)]) == blob.chunks[5] + blob.chunks[0]
    # nothing is written there: others would take the holes for data
    assert path.stat().st_size == 4096
    with_cache.close()


def test_a_map_cut_under_a_reader_is_fetched_again(tmp_path):
    blob = MadeBlob(chunks([5000] * 8))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    read_spans(with_cache, blob.spans())
    os.truncate(tmp_path / f"{blob.blob_id}.blob.data.chunk_map", 0)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_blob_meta_that_somebody_put_there_is_used(tmp_path):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    meta = blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    (tmp_path / f"{blob.blob_id}.blob.meta").write_bytes(meta)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert backend.requests == backend.data_requests(blob)
    with_cache.close()


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(8192), b"y" * 8192])
def test_a_broken_blob_meta_is_fetched_again(tmp_path, content):
    blob = MadeBlob(chunks())
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    path.write_bytes(content)
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    with_cache.close()


@pytest.mark.parametrize("bit", [0, 9, 17, 33, 42, 47])
def test_a_flipped_bit_in_a_kept_blob_meta_costs_a_request_and_no_error(tmp_path, caplog, bit):
    blob = MadeBlob([bytes([n]) * 6000 + os.urandom(99) for n in range(4)])
    backend = MadeBackend(blob)
    meta = bytearray(blob.ci.ljust(4096, b"\0") + blob.data[-4096:])
    stored = 24 * 2 + 8 + bit // 8  # word 1 of chunk 2: 40 bits of its stored offset, then its size
    meta[stored] ^= 1 << bit % 8
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    path.write_bytes(meta)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    assert len([request for request in backend.requests if request[0] >= blob.data_size]) <= 2
    with_cache.close()


def test_a_blob_of_another_image_is_an_error_at_the_first_read(tmp_path, caplog):
    blob = MadeBlob(chunks())
    blob.data[-4096 + 12] ^= 1
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, blob.spans())
    assert "not the one of the bootstrap: " in caplog.text
    assert files(tmp_path) == ["blob.data", *MAP_FILES]
    with_cache.close()


def test_the_two_modes_do_not_share_a_directory(tmp_path):
    blob = MadeBlob(chunks())
    device(blob, MadeBackend(blob), tmp_path).close()
    with pytest.raises(CacheError, match="another work_dir"):
        device(blob, MadeBackend(blob), tmp_path, compressed=True)


def test_the_cache_directory_is_made_with_its_parents(tmp_path):
    blob = MadeBlob(chunks())
    with_cache = device(blob, MadeBackend(blob), tmp_path / "a" / "b")
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert len(files(tmp_path / "a" / "b")) == 2 + len(MAP_FILES)
    with_cache.close()


# disks that take nothing


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "nydusd-test", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("batch_size", [0, 1 << 20])
def test_a_full_disk_disturbs_no_read_and_is_logged_once(small_disk, caplog, batch_size):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk, batch_size)
    with caplog.at_level(logging.WARNING, "nydusd"):
        for _ in range(2):
            for index in range(10):
                assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
            assert read_spans(with_cache, blob.spans()) == blob.content
    assert sum("cannot be kept in" in record.getMessage() for record in caplog.records) == 1
    with_cache.close()


@pytest.mark.root
def test_nothing_is_fetched_along_while_the_disk_is_full(small_disk, caplog):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk, 1 << 20)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(100 << 10))
    for index in (0, 1, 2):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert [size for _, size in backend.data_requests(blob)][1:] == [40000] * 2
    filler.unlink()
    for index in (3, 4):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert backend.data_requests(blob)[-1][1] > 40000
    assert "reads go on" in caplog.text
    with_cache.close()


def test_nothing_is_fetched_along_for_a_file_that_was_cut(tmp_path):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, blob.spans()) == blob.content
    os.truncate(tmp_path / f"{blob.blob_id}.blob.data", 0)
    backend.requests.clear()
    for index in range(3):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert [size for _, size in backend.requests] == [40000] * 3
    with_cache.close()


@pytest.mark.root
def test_a_read_only_disk_serves_what_it_has_and_the_rest_from_the_backend(small_disk, caplog):
    blob = MadeBlob(chunks([4096] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk)
    read_spans(with_cache, blob.spans()[:5])
    with_cache.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    requests = len(backend.requests)
    with_cache = device(blob, backend, small_disk)
    for _ in range(2):
        assert read_spans(with_cache, blob.spans()[:5]) == b"".join(blob.chunks[:5])
    assert len(backend.requests) == requests
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()
    other = MadeBlob(chunks([4096] * 3), blob_id="c" * 64)
    with_cache = device(other, MadeBackend(other), small_disk)
    assert read_spans(with_cache, other.spans()) == other.content
    with_cache.close()
    assert "reads go on" in caplog.text


def test_a_directory_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    blob = MadeBlob(chunks())
    with_cache = device(blob, MadeBackend(blob), tmp_path / "file" / "work")
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert "reads go on" in caplog.text
    with_cache.close()


def test_a_fetch_that_outlives_its_device_closes_the_files_when_it_ends(tmp_path):
    blob = MadeBlob(chunks([5000] * 3), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    cached = with_cache.blobs[0]
    cached.load_description()
    backend.started.clear()
    backend.gate.clear()
    results = []
    reader = threading.Thread(target=lambda: results.append(read_spans(with_cache, blob.spans())))
    reader.start()
    assert backend.started.wait(20)
    cached.close()
    assert backend.closed == 0
    backend.gate.set()
    reader.join()
    assert results == [blob.content]
    assert backend.closed == 1
    kept = (tmp_path / f"{blob.blob_id}.blob.data").read_bytes()
    assert kept == blob.plain


def test_what_came_along_and_was_kept_is_let_be_when_what_is_needed_was_not(tmp_path, caplog):
    blob = MadeBlob(chunks([4096] * 8), compressor=Compressor.NONE)
    with_cache = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    cached = with_cache.blobs[0]
    cached.load_description()
    assert cached.chunks.try_claim(7)  # by another fetch, as it seems
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 4096, limits[1]))
    try:
        assert read_spans(with_cache, blob.spans()[6:]) == b"".join(blob.chunks[6:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [cached.chunks.ready(index) for index in range(8)] == [True] * 6 + [False] * 2
    cached.chunks.give_up(7)
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()
    assert "reads go on" in caplog.text


def test_a_chunk_is_decoded_from_the_request_that_was_made_for_it(tmp_path):
    blob = MadeBlob(chunks([5000] * 4), 5, Compressor.NONE, with_crc=False)
    with_cache = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    cached = with_cache.blobs[0]
    cached.file.stop()
    assert cached.chunks.try_claim(1)  # or it would be in one request with the others
    # It begins between the first and the third, and ends after both.
    longer = blob.span(1)._replace(
        compressed_size=12000, uncompressed_size=12000, length=12000, uncompressed_offset=0
    )
    got = read_spans(with_cache, [blob.span(0), longer, blob.span(2)])
    assert got == blob.chunks[0] + bytes(blob.data[5000:17000]) + blob.chunks[2]
    cached.chunks.give_up(1)
    with_cache.close()
