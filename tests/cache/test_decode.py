"""What chunks are checked for, from the backend and from the cache file."""

import logging

import pytest
import zstandard

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, device, files


def test_a_frame_that_inflates_a_thousandfold_is_eio(tmp_path, caplog):
    blob = MadeBlob([bytes(range(256)) * 64, b"x" * 5000], with_crc=False)
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))[: blob.places[0][1]]
    blob.data[: len(bomb)] = bomb
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, [blob.span(0)])
    assert "do not decode" in caplog.text
    with_cache.close()


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
