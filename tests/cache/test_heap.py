import os
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from nydusd.base.errors import BackendError
from nydusd.cache import heap
from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Prefetch
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, MadeReader, device

CHUNKS = [bytes([i]) * 300_000 for i in range(64)]
THREAD = "give-back"


def resident_bytes() -> int:
    """Anonymous memory of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    line = next(line for line in lines if line.startswith("RssAnon"))
    return int(line.split()[1]) << 10


def wait_for_the_end() -> None:
    """Until what fetches have left was given back."""
    for thread in threading.enumerate():
        if thread.name == THREAD:
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.skipif(
    "libasan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer has a heap of its own"
)
def test_what_fetches_have_left_is_given_back_after_the_last_one(tmp_path):
    blob = MadeBlob(CHUNKS, 6, Compressor.NONE)
    filled = device(blob, MadeBackend(blob), tmp_path)
    wait_for_the_end()
    before = resident_bytes()
    prefetcher = Prefetcher(
        filled, Prefetch(enable=True, threads=4, batch_size=4 << 20), everything=True
    )
    prefetcher.start()
    assert prefetcher.wait(60)
    prefetcher.close()
    assert filled.blobs[0].complete
    wait_for_the_end()
    assert resident_bytes() - before < 4 << 20
    filled.close()


def test_memory_is_given_back_in_a_pause_and_not_after_each_fetch(tmp_path, monkeypatch):
    wait_for_the_end()
    asked = []
    pause_is_over = threading.Event()

    def sleep(seconds: float) -> None:
        asked.append(seconds)
        assert pause_is_over.wait(60)

    monkeypatch.setattr(heap, "time", SimpleNamespace(sleep=sleep))
    blob = MadeBlob(CHUNKS, 6, Compressor.NONE)
    filled = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    try:
        assert read_spans(filled, blob.spans()) == blob.content
        (keeper,) = [each for each in threading.enumerate() if each.name == THREAD]
        again = device(blob, MadeBackend(blob), tmp_path / "again", batch_size=1 << 20)
        assert read_spans(again, blob.spans()) == blob.content
        again.close()
        assert [each for each in threading.enumerate() if each.name == THREAD] == [keeper]
    finally:
        pause_is_over.set()
        wait_for_the_end()
        filled.close()
    assert min(asked) > 0


def test_buffers_that_are_used_again_carry_nothing_over(tmp_path):
    blob = MadeBlob([os.urandom(200_000 + 7 * i) for i in range(40)], 6, Compressor.ZSTD)
    filled = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    for index in (20, 3, 39, 11, 0, 30):
        assert read_spans(filled, [blob.span(index)]) == blob.chunks[index]
    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()


class LingeringReader(MadeReader):
    """Fails once, and writes into the buffer of that request when the next one has come."""

    left: memoryview | None = None

    def read_into(self, buffer, offset: int, *, background: bool = False) -> None:
        if len(buffer) > 1 << 17 and self.left is None:
            self.left = memoryview(buffer)
            raise BackendError("no bytes yet")
        super().read_into(buffer, offset, background=background)
        if self.left is not None:
            self.left[:] = bytes(len(self.left))


def test_a_buffer_that_a_failed_request_still_holds_is_not_used_again(
    tmp_path, monkeypatch, caplog
):
    blob = MadeBlob([os.urandom(300_000)], 6, Compressor.NONE)
    backend = MadeBackend(blob)
    reader = LingeringReader(backend, blob.data)
    monkeypatch.setattr(backend, "reader", lambda blob_id: reader)
    filled = device(blob, backend, tmp_path)
    with pytest.raises(OSError, match="Input/output error"):
        read_spans(filled, blob.spans())
    assert "no bytes yet" in caplog.text

    assert read_spans(filled, blob.spans()) == blob.content
    filled.close()
