import os
import threading
import time

import pytest

from nydusd.cache import ahead as module
from nydusd.cache.ahead import WINDOWS_MAX, ReadAhead
from nydusd.cache.device import Device
from nydusd.cache.pool import open_blob
from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, policy

CHUNK = 4096
EACH = 32  # chunks of a window
WINDOW = EACH * CHUNK


def blob_of(windows: int) -> MadeBlob:
    return MadeBlob(chunks([CHUNK] * EACH * windows), compressor=Compressor.NONE)


def device(blob: MadeBlob, backend: MadeBackend, folder, batch_size: int = WINDOW) -> Device:
    cached = open_blob(blob.info, backend, policy(folder))
    ahead = ReadAhead(batch_size)

    def release() -> None:
        ahead.close()
        cached.close()

    return Device([cached], batch_size, release, ahead.note)


def opened(folder, count: int) -> tuple[MadeBlob, MadeBackend, Device]:
    """A blob of *count* windows behind a device that keeps it in *folder*."""
    blob = blob_of(count)
    backend = MadeBackend(blob)
    return blob, backend, device(blob, backend, folder)


def wait_for(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def windows(backend: MadeBackend, blob: MadeBlob) -> list[int]:
    """Numbers of the windows that were asked for, each as a whole."""
    requests = sorted(backend.data_requests(blob))
    assert all(offset % WINDOW == 0 and size == WINDOW for offset, size in requests)
    return [offset // WINDOW for offset, _ in requests]


def read_window(device: Device, blob: MadeBlob, number: int) -> None:
    index = number * EACH
    assert read_spans(device, [blob.span(index)]) == blob.chunks[index]


def test_the_third_fetch_in_a_row_has_the_next_window_fetched_beside_it(tmp_path):
    blob, backend, read = opened(tmp_path, 20)
    read_window(read, blob, 0)
    read_window(read, blob, 1)
    assert (windows(backend, blob), backend.background) == ([0, 1], 0)
    read_window(read, blob, 2)
    wait_for(lambda: backend.background == 1)
    assert windows(backend, blob) == [0, 1, 2, 3]
    read_window(read, blob, 3)
    assert windows(backend, blob) == [0, 1, 2, 3]
    read.close()


def test_never_more_than_half_of_the_row_is_fetched_ahead(tmp_path):
    blob, backend, read = opened(tmp_path, 40)
    most = 0
    for number in range(25):
        read_window(read, blob, number)
        known = read.snapshot()["prefetch_requests"]
        wait_for(lambda known=known: backend.background >= known)
        ahead = max(windows(backend, blob)) - number
        assert ahead <= min((number + 2) // 2, WINDOWS_MAX)
        most = max(most, ahead)
    assert most == WINDOWS_MAX
    read.close()


def test_a_blob_that_is_read_in_order_takes_no_request_more(tmp_path):
    blob, backend, read = opened(tmp_path, 13)
    content = b"".join(read_spans(read, [span]) for span in blob.spans())
    assert content == blob.content
    assert windows(backend, blob) == list(range(13))
    assert backend.background > 6
    read.close()


def test_readers_side_by_side_have_rows_of_their_own(tmp_path):
    blob, backend, read = opened(tmp_path, 24)
    for number in range(3):
        for start in (0, 8, 16):
            read_window(read, blob, start + number)
    wait_for(lambda: backend.background == 3)
    assert windows(backend, blob) == [s + n for s in (0, 8, 16) for n in range(4)]
    read.close()


def test_readers_who_go_through_it_together_are_one_row(tmp_path):
    blob, backend, read = opened(tmp_path, 30)
    failures = []

    def go(first: int) -> None:
        try:
            for index in range(first, len(blob.chunks), 4):
                assert read_spans(read, [blob.span(index)]) == blob.chunks[index]
        except BaseException as exc:
            failures.append(exc)

    threads = [threading.Thread(target=go, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    assert backend.background > 0
    read.close()


@pytest.mark.parametrize("order", [[0, 2, 4, 6, 8, 10], [10, 9, 8, 7, 6], [0, 1, 5, 6, 11, 12]])
def test_who_does_not_read_on_is_not_read_ahead_for(tmp_path, order):
    blob, backend, read = opened(tmp_path, 14)
    for number in order:
        read_window(read, blob, number)
    assert windows(backend, blob) == sorted(order)
    assert backend.background == 0
    read.close()


def test_a_row_passes_over_what_is_here(tmp_path):
    blob, backend, read = opened(tmp_path, 12)
    for number in (4, 0, 1):
        read_window(read, blob, number)
    read_window(read, blob, 2)  # the third: window 3 is fetched ahead
    wait_for(lambda: backend.background == 1)
    read_window(read, blob, 5)
    wait_for(lambda: backend.background == 3)
    assert windows(backend, blob) == list(range(8))
    read.close()


def test_a_reader_who_comes_while_it_is_on_its_way_does_not_ask_again(tmp_path):
    blob, backend, read = opened(tmp_path, 8)
    read_window(read, blob, 0)
    read_window(read, blob, 1)
    backend.gate.clear()
    reader = threading.Thread(target=read_window, args=(read, blob, 2))
    reader.start()
    wait_for(lambda: len(backend.data_requests(blob)) == 4)
    late = threading.Thread(target=read_window, args=(read, blob, 3))
    late.start()
    backend.gate.set()
    reader.join(20)
    late.join(20)
    assert windows(backend, blob) == [0, 1, 2, 3]
    read.close()


def test_what_cannot_be_fetched_ahead_is_left_to_its_reader(tmp_path, caplog):
    blob = blob_of(12)
    backend = MadeBackend(blob)
    backend.broken = [(3 * WINDOW, 4 * WINDOW)]
    read = device(blob, backend, tmp_path)
    caplog.set_level("INFO", "nydusd")
    for number in range(3):
        read_window(read, blob, number)
    wait_for(lambda: "read ahead did not come" in caplog.text)
    with pytest.raises(OSError, match="read of"):
        read_window(read, blob, 3)
    backend.broken = []
    for number in range(3, 12):
        read_window(read, blob, number)
    assert read.blobs[0].complete
    read.close()


def test_nothing_is_fetched_ahead_where_nothing_can_be_kept(tmp_path):
    blob = blob_of(8)
    backend = MadeBackend(blob)
    read = device(blob, backend, None)
    for number in range(6):
        read_window(read, blob, number)
    assert backend.background == 0
    read.close()


@pytest.mark.parametrize("error", [RuntimeError("can't start new thread"), MemoryError()])
def test_without_threads_a_reader_fetches_for_itself(tmp_path, monkeypatch, error):
    def refuse(_thread):
        raise error

    blob, backend, read = opened(tmp_path, 8)
    read_window(read, blob, 0)
    read_window(read, blob, 1)
    monkeypatch.setattr("threading.Thread.start", refuse)
    for number in range(2, 8):
        read_window(read, blob, number)
    assert (windows(backend, blob), backend.background) == (list(range(8)), 0)
    assert read.blobs[0].complete
    read.close()


def test_a_window_that_cannot_be_claimed_leaves_no_claim_on_the_one_before(
    tmp_path, monkeypatch, caplog
):
    claim = module.claim_run

    def refuse_window_6(blob, first, batch_size):
        if first == 6 * EACH:
            raise MemoryError
        return claim(blob, first, batch_size)

    monkeypatch.setattr(module, "claim_run", refuse_window_6)
    blob, backend, read = opened(tmp_path, 8)
    for number in (0, 1, 2, 4):  # the last one would have 5 and 6 fetched ahead
        read_window(read, blob, number)
    assert "nothing is read ahead here" in caplog.text
    assert 5 not in windows(backend, blob)
    assert read.blobs[0].chunks.try_claim(5 * EACH)
    read.blobs[0].chunks.give_up(5 * EACH)
    read.close()


def test_what_is_under_way_when_the_device_closes_ends_with_the_blob(tmp_path):
    blob, backend, read = opened(tmp_path, 8)
    read_window(read, blob, 0)
    read_window(read, blob, 1)
    backend.gate.clear()
    reader = threading.Thread(target=read_window, args=(read, blob, 2))
    reader.start()
    wait_for(lambda: len(backend.data_requests(blob)) == 4)
    read.close()
    assert backend.closed == 0
    backend.gate.set()
    reader.join(20)
    wait_for(lambda: backend.closed == 1)
