"""Who of several readers fetches a chunk, and what becomes of a claim."""

import logging
import threading

import pytest

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, device


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
    assert backend.started.wait(60)
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
