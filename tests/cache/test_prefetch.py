import os
import threading
import time

import pytest

from nydusd.cache.device import Device
from nydusd.cache.pool import open_blob
from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Prefetch
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, device, hole, policy

CONFIG = Prefetch(enable=True, threads=3, batch_size=128 << 10)


def blob_of(count: int, version: int = 6) -> MadeBlob:
    return MadeBlob([bytes([i % 251]) * 5000 for i in range(count)], version, Compressor.NONE)


def wait_for(condition) -> bool:
    """Whether *condition* comes true within 20 seconds."""
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        os.sched_yield()
    return condition()


def run(prefetcher: Prefetcher) -> None:
    prefetcher.start()
    assert prefetcher.wait(60)
    prefetcher.close()


def ready(filled: Device) -> list[int]:
    blob = filled.blobs[0]
    return [index for index in range(blob.chunks.count) if blob.chunks.ready(index)]


def test_everything_is_filled_in_few_requests_of_up_to_two_and_a_half_batches(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    run(Prefetcher(filled, CONFIG, everything=True))
    assert filled.blobs[0].complete
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    assert sorted(backend.data_requests(blob)) == [
        (0, 325000),
        (325000, 325000),
        (650000, 325000),
        (975000, 25000),
    ]
    counts = filled.snapshot()
    assert counts["prefetch_bytes"] == counts["backend_bytes"] == blob.data_size
    assert counts["prefetch_chunks"] == 200
    assert backend.background == len(backend.data_requests(blob))
    requests = len(backend.requests)
    assert read_spans(filled, blob.spans()) == blob.content
    assert len(backend.requests) == requests
    filled.close()


def test_requests_are_no_longer_than_leaves_some_for_every_thread(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    run(Prefetcher(filled, CONFIG._replace(threads=5), everything=True))
    assert sorted(size for _, size in backend.data_requests(blob)) == [200000] * 5
    filled.close()


def test_what_comes_out_of_a_long_request_is_bounded_as_for_a_batch(tmp_path):
    chunks = [bytes([i]) * 100_000 for i in range(100)]
    blob = MadeBlob(chunks, 6, Compressor.ZSTD)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    run(Prefetcher(filled, CONFIG._replace(threads=1), everything=True))
    assert filled.blobs[0].complete
    stored = {place[0]: place[1] for place in blob.places}
    at_most = max(stored.values()) * ((4 * CONFIG.batch_size) // 100_000 + 1)
    assert max(size for _, size in backend.data_requests(blob)) <= at_most
    filled.close()


def test_the_tables_of_all_blobs_are_asked_for_side_by_side(tmp_path):
    blobs = [MadeBlob([bytes([i]) * 5000], blob_id=str(i) * 64) for i in range(3)]
    backend = MadeBackend(*blobs)
    cached = [open_blob(blob.info, backend, policy(tmp_path)) for blob in blobs]
    filled = Device(cached, 0, lambda: [blob.close() for blob in cached])
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    backend.gate.clear()
    prefetcher.start()
    assert wait_for(lambda: len(backend.requests) == 3)
    assert sum(len(backend.data_requests(blob)) for blob in blobs) == 0
    backend.gate.set()
    assert prefetcher.wait(60)
    assert all(blob.complete for blob in cached)
    prefetcher.close()
    filled.close()


def test_progress_tells_what_was_asked_for_and_when(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    before = prefetcher.progress()
    assert (before.state, before.workers, before.begin_time) == ("waiting", 3, 0)
    assert (before.ready_chunks, before.total_chunks) == (0, 200)
    prefetcher.start()
    assert prefetcher.wait(60)
    after = prefetcher.progress()
    assert after.state == "finished"
    assert after.requests == len(backend.data_requests(blob))
    assert after.data_bytes == blob.data_size
    assert after.ready_chunks == 200
    assert 0 < after.begin_time <= after.end_time
    prefetcher.close()
    filled.close()


def test_progress_is_told_while_the_backend_hangs(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    backend.gate.clear()
    prefetcher.start()
    assert backend.started.wait(60)
    assert prefetcher.progress().state == "running"
    backend.gate.set()
    prefetcher.close()
    assert prefetcher.progress().state in {"stopped", "finished"}
    filled.close()


def test_what_readers_fetch_comes_out_of_the_bandwidth(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.prefetch.BURST_BYTES", 0)
    blob = blob_of(400)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    limit = blob.data_size // 2
    config = CONFIG._replace(threads=1, bandwidth_limit=limit)
    prefetcher = Prefetcher(filled, config, everything=True)
    charged = []
    monkeypatch.setattr(prefetcher._bucket, "charge", charged.append)
    assert read_spans(filled, [blob.span(399)]) == blob.chunks[399]
    prefetcher.start()
    assert prefetcher.wait(60)
    assert sum(charged) == 5000
    prefetcher.close()
    filled.close()


@pytest.mark.parametrize("version", [5, 6])
def test_hinted_spans_are_filled_and_nothing_else(tmp_path, version):
    blob = blob_of(50, version)
    filled = device(blob, MadeBackend(blob), tmp_path)
    hinted = [blob.span(30), hole(9), blob.span(31), blob.span(3), blob.span(3)]
    run(Prefetcher(filled, CONFIG, hinted))
    assert ready(filled) == [3, 30, 31]
    filled.close()


@pytest.mark.parametrize("version", [5, 6])
def test_hinted_spans_are_asked_for_in_requests_as_long_as_those_of_a_run(tmp_path, version):
    blob = blob_of(200, version)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    spans = blob.spans()
    run(Prefetcher(filled, CONFIG, spans[1::2] + spans[::2]))
    assert filled.blobs[0].complete
    assert sorted(backend.data_requests(blob)) == [
        (0, 325000),
        (325000, 325000),
        (650000, 325000),
        (975000, 25000),
    ]
    filled.close()


def test_hinted_spans_that_are_far_from_each_other_are_requests_of_their_own(tmp_path):
    blob = blob_of(200)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    run(Prefetcher(filled, CONFIG, [blob.span(index) for index in (150, 10, 11, 80, 10)]))
    assert sorted(backend.data_requests(blob)) == [(50000, 10000), (400000, 5000), (750000, 5000)]
    assert ready(filled) == [10, 11, 80, 150]
    filled.close()


def test_the_blob_s_own_prefix_comes_first(tmp_path):
    blob = blob_of(100)
    backend = MadeBackend(blob)
    info = blob.info._replace(prefetch_size=5000 * 10)
    cached = open_blob(info, backend, policy(tmp_path))
    filled = Device([cached], 0, cached.close)
    run(Prefetcher(filled, CONFIG._replace(threads=1), [blob.span(90)]))
    assert ready(filled) == [*range(10), 90]
    assert backend.data_requests(blob)[0] == (0, 50000)
    filled.close()


def test_a_failed_request_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.prefetch.RETRY_SECONDS", 0.0)
    blob = blob_of(100)
    backend = MadeBackend(blob)
    backend.broken = [(0, 1)]
    monkeypatch.setattr("nydusd.cache.prefetch.RETRIES_MAX", 1 << 30)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    backend.gate.clear()
    prefetcher.start()
    assert backend.started.wait(60)
    backend.gate.set()
    assert wait_for(lambda: len(backend.requests) > 8)
    backend.broken = []
    assert prefetcher.wait(60)
    assert filled.blobs[0].complete
    prefetcher.close()
    filled.close()


def test_a_backend_that_stays_broken_is_given_up(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("nydusd.cache.prefetch.RETRY_SECONDS", 0.0)
    blob = blob_of(100)
    backend = MadeBackend(blob)
    backend.broken = [(0, 1 << 30)]
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    run(prefetcher)
    assert prefetcher.progress().state == "failed"
    assert "given up" in caplog.text
    assert 32 <= len(backend.requests) <= 40
    filled.close()


def test_close_ends_it_in_the_middle(tmp_path):
    blob = blob_of(500)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG._replace(bandwidth_limit=1, threads=1), everything=True)
    backend.gate.clear()
    prefetcher.start()
    assert backend.started.wait(60)
    closer = threading.Thread(target=prefetcher.close)
    closer.start()
    backend.gate.set()
    closer.join(60)
    assert not closer.is_alive()
    assert not filled.blobs[0].complete
    filled.close()


def test_close_waits_for_all_threads_together_not_for_each(tmp_path):
    blob = blob_of(500)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    filled.blobs[0].load_description()
    prefetcher = Prefetcher(filled, CONFIG._replace(threads=20), everything=True)
    backend.gate.clear()
    prefetcher.start()
    assert backend.started.wait(60)
    closer = threading.Thread(target=prefetcher.close, args=(1.0,))
    closer.start()
    closer.join(60)
    assert not closer.is_alive()
    backend.gate.set()
    assert prefetcher.wait(60)
    filled.close()


def test_readers_are_served_while_it_runs(tmp_path):
    blob = blob_of(300)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path, 1 << 20)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    prefetcher.start()
    assert read_spans(filled, blob.spans()[::-1]) == b"".join(blob.chunks[::-1])
    assert prefetcher.wait(60)
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    prefetcher.close()
    filled.close()


def test_without_a_cache_there_is_nothing_to_fill():
    blob = blob_of(10)
    backend = MadeBackend(blob)
    without = device(blob, backend, None)
    run(Prefetcher(without, CONFIG, blob.spans(), everything=True))
    assert backend.requests == []
    without.close()


def test_what_cannot_be_decoded_is_let_go_of_for_the_readers(tmp_path, monkeypatch, caplog):
    blob = MadeBlob([bytes([i]) * 5000 for i in range(100)], 6, Compressor.ZSTD)
    filled = device(blob, MadeBackend(blob), tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)

    def broken(*_args, **_more):
        raise MemoryError("no room for a context")

    with monkeypatch.context() as patch:
        patch.setattr("zstandard.ZstdDecompressor", broken)
        run(prefetcher)
    assert prefetcher.progress().state == "failed"
    assert ready(filled) == []
    chunks = filled.blobs[0].chunks
    assert all(chunks.try_claim(index) for index in range(100))  # nobody holds any
    for index in range(100):
        chunks.give_up(index)
    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()


def no_more_threads():
    raise RuntimeError("can't start new thread")


@pytest.mark.parametrize("begun", [0, 1])
def test_it_makes_do_with_the_threads_that_the_system_gives(tmp_path, monkeypatch, caplog, begun):
    blob = blob_of(100)
    filled = device(blob, MadeBackend(blob), tmp_path)
    prefetcher = Prefetcher(filled, CONFIG, everything=True)
    monkeypatch.setattr(prefetcher._threads[begun], "start", no_more_threads)
    prefetcher.start()
    assert prefetcher.wait(60)
    assert prefetcher.progress().state == ("finished" if begun else "failed")
    prefetcher.close()
    assert filled.blobs[0].complete == bool(begun)
    assert f"only {begun} threads" in caplog.text
    filled.close()
