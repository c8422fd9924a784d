import os
import struct
import threading
import time

import pytest

from nydusd.cache.early import early_end, may_begin_early
from nydusd.cache.fill import get_run
from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Prefetch
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, device

CONFIG = Prefetch(enable=True, threads=3, batch_size=128 << 10)


def blob_of(count: int) -> MadeBlob:
    return MadeBlob([bytes([i % 251]) * 5000 for i in range(count)], compressor=Compressor.NONE)


def told(places) -> bytes:
    return b"".join(struct.pack("=QQ", offset, size) for offset, size in places)


def places_of(blob: MadeBlob) -> bytes:
    return told((offset, size) for offset, size, _ in blob.places)


def prefetcher(filled, places: bytes) -> Prefetcher:
    return Prefetcher(filled, CONFIG, everything=True, places=lambda _index, _count: places)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_the_first_requests_do_not_wait_for_the_table(tmp_path):
    blob = blob_of(400)
    backend = MadeBackend(blob)
    backend.gate.clear()
    filled = device(blob, backend, tmp_path)
    running = prefetcher(filled, places_of(blob))
    running.start()
    wait_for(lambda: len(backend.requests) == 3)
    assert sorted(backend.data_requests(blob)) == [
        (0, 325000),
        (325000, 325000),
        (650000, 325000),
    ]
    backend.gate.set()
    assert running.wait(20)
    running.close()
    assert filled.blobs[0].complete
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    assert len(backend.data_requests(blob)) == 7  # as many as without
    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()


@pytest.mark.parametrize(
    "shift",
    [lambda o, s: (o + 1, s), lambda o, s: (o, s - 1), lambda o, s: (1 << 61, s)],
    ids=["offset", "size", "far away"],
)
def test_places_that_the_table_does_not_confirm_cost_bytes_and_nothing_else(tmp_path, shift):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    wrong = [shift(offset, size) for offset, size, _ in blob.places]
    running = prefetcher(filled, told(wrong))
    running.start()
    assert running.wait(20)
    running.close()
    assert filled.blobs[0].complete
    assert filled.snapshot()["corrupt_chunks"] == 0
    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()


def test_one_wrong_place_costs_that_chunk_another_request(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    places = [(offset, size) for offset, size, _ in blob.places]
    places[3] = (places[3][0], 4999)
    places[4] = (places[4][0] - 1, 5001)
    running = prefetcher(filled, told(places))
    running.start()
    assert running.wait(20)
    running.close()
    assert filled.blobs[0].complete
    assert (15000, 10000) in backend.data_requests(blob)
    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()


def test_what_is_where_it_was_said_to_be_is_kept_before_the_rest_is_asked_for(
    tmp_path, monkeypatch
):
    begun, go = threading.Event(), threading.Event()

    def get_slowly(blob, first, last, batch_size):
        if first == 0:
            begun.set()
            assert go.wait(60)
        return get_run(blob, first, last, batch_size)

    monkeypatch.setattr("nydusd.cache.prefetch.get_run", get_slowly)
    blob = blob_of(200)
    filled = device(blob, MadeBackend(blob), tmp_path)
    places = [(offset, size) for offset, size, _ in blob.places]
    places[3] = (places[3][0], 4999)
    places[4] = (places[4][0] - 1, 5001)
    running = prefetcher(filled, told(places))
    running.start()
    assert begun.wait(20)
    try:
        wait_for(lambda: filled.blobs[0].chunks.ready(0))
    finally:
        go.set()
    assert running.wait(20)
    running.close()
    assert filled.blobs[0].complete
    filled.close()


def test_a_blob_of_which_something_is_here_waits_for_its_table(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    first = device(blob, backend, tmp_path)
    assert may_begin_early(first.blobs[0])
    read_spans(first, [blob.span(0)])
    assert not may_begin_early(first.blobs[0])
    first.close()
    (tmp_path / f"{blob.blob_id}.blob.meta").unlink()
    again = device(blob, backend, tmp_path)
    assert not may_begin_early(again.blobs[0])
    again.close()


def test_an_image_without_a_chunk_table_is_filled_all_the_same(tmp_path):
    blob = blob_of(200)
    filled = device(blob, MadeBackend(blob), tmp_path)
    running = prefetcher(filled, b"")
    running.start()
    assert running.wait(20)
    running.close()
    assert filled.blobs[0].complete
    filled.close()


def test_a_request_ends_at_its_limit_a_gap_and_what_is_not_told():
    places = told([(0, 10), (10, 20), (30, 5), (36, 5), (41, 5), (0, 0), (50, 1 << 63)])
    assert early_end(places, 0, 100) == 3
    assert early_end(places, 0, 30) == 2
    assert early_end(places, 0, 9) == 0
    assert early_end(places, 3, 100) == 5
    assert early_end(places, 5, 100) == 5
    assert early_end(places, 6, 100) == 6
    assert early_end(places, 7, 100) == 7
    assert early_end(b"", 0, 100) == 0
