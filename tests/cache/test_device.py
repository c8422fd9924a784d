"""Reads of whole devices: spans to bytes, through the cache or without."""

import logging
import struct

import pytest

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MAP_FILES, MadeBackend, MadeBlob, chunks, device, files, hole

COMPRESSORS = [Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD]


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


@pytest.mark.parametrize("version", [5, 6])
def test_without_a_cache_every_read_is_a_fetch(version):
    blob = MadeBlob(chunks(), version)
    backend = MadeBackend(blob)
    without = device(blob, backend, None, 1 << 20)
    for _ in range(2):
        assert read_spans(without, blob.spans()) == blob.content
    assert len(backend.data_requests(blob)) == 2 * len(set(backend.data_requests(blob)))
    without.close()


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
