"""Filling the cache in the background: what the image or the operator names first, or everything.

One `Prefetcher` serves one mount: some threads share one list of work, give way while readers wait
for a fetch, and keep to a bandwidth. What they have got is decoded beside them (`cache.keepers`):
the next request is on its way meanwhile. Order and limits: spec, prefetch. Started and closed by
the thread that mounts.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from itertools import groupby, islice
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError, BlobCorrupt
from nydusd.base.ratelimit import TokenBucket
from nydusd.base.record import NamedTuple
from nydusd.cache.device import waiting_readers
from nydusd.cache.fill import Filling, cut_spans, get_run, get_spans, next_missing, run_end
from nydusd.cache.keepers import Keepers

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from nydusd.cache.cached_blob import CachedBlob
    from nydusd.cache.device import Device
    from nydusd.config.model import Prefetch
    from nydusd.rafs.records import Span

logger = logging.getLogger("nydusd")

BURST_BYTES = 16 << 20  # pass at once, however low the limit (the reference's)
RETRIES_MAX = 32  # of one prefetcher
RETRY_SECONDS = 1.0
GIVE_WAY_SECONDS = 0.005  # between two looks whether readers still wait
GIVE_WAY_LOOKS = 40  # then one request goes out all the same
REQUEST_BYTES_MIN = 128 << 10
RUN_BATCHES = 2.5  # the longest request of a run through a blob: fewer round trips
STREAM_BURST_SECONDS = 2  # of the bandwidth may come at once in a stream
SPANS_AT_A_TIME = 1024
PLAIN_BATCHES = 4  # what a request is thought to become: decides how many spans are looked at
SPAN_HOLE = 1

# One request: what to call, which gives what it got of the backend; None for nothing to keep.
Work = Callable[[], Filling | None]


class PrefetchProgress(NamedTuple):
    """How far one prefetch has come, at the moment of asking."""

    state: str  # waiting, running, finished, stopped, failed
    workers: int  # threads
    requests: int  # that asked the backend for something
    data_bytes: int  # asked of the backend
    busy_seconds: float  # of all threads inside their requests, added up
    begin_time: float  # seconds since the epoch; 0 = not begun
    end_time: float  # 0 = not ended
    ready_chunks: int  # on local disk, whoever fetched them
    total_chunks: int


class Prefetcher:
    """Fills the cache of *device* as *config* says; nothing runs before `start`.

    *hinted*: spans to fetch first, in order, after each blob's own prefix; walked on a background
    thread. *everything*: then all that is left (v6; for v5 *hinted* names every file), which
    `stream_prefetch` asks for too, as a stream of each blob. *places*: tells of a blob by index and
    chunk count where chunks are (`rafs.chunk_records.places_of_blob`): the first requests for
    everything need not wait for its CI array.
    """

    def __init__(
        self,
        device: Device,
        config: Prefetch,
        hinted: Iterable[Span] = (),
        *,
        everything: bool = False,
        places: Callable[[int, int], bytes] | None = None,
    ) -> None:
        self._places = places
        self._blobs = [blob for blob in device.blobs if blob is not None and blob.file is not None]
        self._by_index = {blob.info.blob_index: blob for blob in self._blobs}
        self._batch_size = max(config.batch_size, REQUEST_BYTES_MIN)
        self._stop = threading.Event()
        self._turn = threading.Lock()  # whose turn it is to take from _work; may wait for a backend
        self._work = self._all_work(hinted, everything)
        self._lock = threading.Lock()  # guards the figures: what follows, down to _end_time
        self._running = 0
        self._requests = 0
        self._data_bytes = 0
        self._busy_seconds = 0.0
        self._begin_time = 0.0
        self._end_time = 0.0
        self._retries = 0  # a lost update of two threads costs one retry more
        self._failed = False
        self._paid_for_readers = self._fetched_by_readers()
        self._done = threading.Event()
        self._streaming = config.stream_prefetch
        self._bucket = self._stream_bucket = None
        if rate := config.bandwidth_limit:
            self._bucket = TokenBucket(rate, max(BURST_BYTES, rate))
            self._stream_bucket = TokenBucket(rate, STREAM_BURST_SECONDS * rate)
        self._threads = [
            threading.Thread(target=self._run, name=f"prefetch-{number}", daemon=True)
            for number in range(max(config.threads, 1))
        ]
        self._keepers = Keepers(len(self._threads), self._keep, self._end)

    def start(self) -> None:
        """Begin, with as many threads as the system gives; returns at once."""
        self._running = len(self._threads)
        self._begin_time = time.time()
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except (RuntimeError, MemoryError) as exc:
                self._failed = self._failed or number == 0
                logger.warning("prefetch has only %d threads: %s", number, exc)
                self._leave(len(self._threads) - number)
                break
        self._keepers.start()

    def stop(self) -> None:
        """Begin nothing more; `wait` tells when what was on its way is finished."""
        self._stop.set()

    def close(self, timeout: float = 5.0) -> None:
        """Stop: what is on its way is finished, the rest dropped; at most *timeout* seconds."""
        self.stop()
        deadline = time.monotonic() + timeout
        for thread in (*self._threads, *self._keepers.threads):
            if thread.is_alive():
                thread.join(max(0.0, deadline - time.monotonic()))

    def wait(self, timeout: float | None = None) -> bool:
        """Whether all work was done, or given up, within *timeout* seconds."""
        return self._done.wait(timeout)

    def progress(self) -> PrefetchProgress:
        """What has been done; walks the chunk maps, so ask when somebody wants to see it."""
        with self._lock:
            return PrefetchProgress(
                self._state(),
                len(self._threads),
                self._requests,
                self._data_bytes,
                self._busy_seconds,
                self._begin_time,
                self._end_time,
                sum(blob.chunks.ready_count() for blob in self._blobs),
                sum(blob.chunks.count for blob in self._blobs),
            )

    def _state(self) -> str:
        if not self._begin_time:
            return "waiting"
        if self._failed:
            return "failed"
        if self._stop.is_set():
            return "stopped"
        return "finished" if self._end_time else "running"

    # --- what is to be done, in order

    def _all_work(self, hinted: Iterable[Span], everything: bool) -> Iterator[Work]:
        described = [blob for blob in self._blobs if blob.info.ci_compressed_size]
        begun = [blob for blob in described if blob.info.prefetch_size]
        yield from self._descriptions(begun)
        for blob in begun:
            yield from self._runs(blob, blob.info.prefetch_size)
        yield from self._hinted_work(hinted)
        early: dict[int, int] = {}
        if everything and not self._streaming:
            yield from self._early(described, early)
        if self._streaming or everything:
            yield from self._descriptions(described)
        if self._streaming:
            for blob in described:
                if self._try(partial(describe, blob)):
                    yield partial(self._stream, blob)
        if everything:
            for blob in described:
                yield from self._runs(blob, blob.info.data_size, early.get(blob.info.blob_index, 0))

    def _early(self, blobs: list[CachedBlob], ends: dict[int, int]) -> Iterator[Work]:
        """One request a thread for chunks whose CI array is not here; *ends*: the chunk after."""
        if self._places is None:
            return
        from nydusd.cache.early import early_end, may_begin_early

        left = len(self._threads)
        for blob in blobs:
            if not left or not may_begin_early(blob):
                continue
            places = self._places(blob.info.blob_index, blob.info.chunk_count)
            most = self._longest_request(blob.info.data_size)
            first, end = 0, early_end(places, 0, most)
            while end > first and left:
                yield partial(self._get_early, blob, places, first, end, most)
                left -= 1
                ends[blob.info.blob_index] = first = end
                end = early_end(places, first, most)

    def _get_early(
        self, blob: CachedBlob, places: bytes, first: int, end: int, most: int
    ) -> Filling | None:
        """Have the chunks [*first*, *end*), those that are not where *places* say as well."""
        from nydusd.cache.early import get_early

        began = time.monotonic()
        filling = get_early(blob, places, first, end, most)
        if filling is not None:
            if next_missing(blob, first, end) == end:
                return filling
            # Not held until the rest is here, which may take many tries: readers wait for it.
            if not self._hand_over(filling, time.monotonic() - began):
                return None
        self._try(partial(get_run, blob, first, end, most))
        return None

    def _descriptions(self, blobs: list[CachedBlob]) -> Iterator[Work]:
        """Have the CI arrays of *blobs* side by side: each is a round trip before any chunk."""
        return (partial(describe, blob) for blob in blobs)

    def _runs(self, blob: CachedBlob, limit: int, first: int = 0) -> Iterator[Work]:
        """Requests for the chunks from *first* on that begin in the first *limit* stored bytes."""
        if not self._try(partial(describe, blob)):
            return
        most = self._longest_request(limit)
        end = run_end(blob, first, self._batch_size, most, limit)
        while end > first:
            yield partial(get_run, blob, first, end, most)
            first = end
            end = run_end(blob, first, self._batch_size, most, limit)

    def _longest_request(self, size: int) -> int:
        """Of a run through *size* bytes: longer than a batch only while every thread has some."""
        share = size // len(self._threads)
        return max(self._batch_size, min(share, int(self._batch_size * RUN_BATCHES)))

    def _hinted_work(self, hinted: Iterable[Span]) -> Iterator[Work]:
        """Requests for the spans, those of one blob that are near in the list in one."""
        spans = (span for span in hinted if not span.flags & SPAN_HOLE)
        for index, run in groupby(spans, lambda span: span.blob_index):
            blob = self._by_index.get(index)
            if blob is None or not self._try(partial(describe, blob)):
                continue
            while batch := self._take_batch(run):
                for part in self._cut(blob, batch):
                    yield partial(get_spans, blob, part, int(self._batch_size * RUN_BATCHES))

    def _cut(self, blob: CachedBlob, batch: list[Span]) -> list[list[Span]]:
        """The spans of each request; one for all where that cannot be told."""
        try:
            return cut_spans(blob, batch, self._batch_size, RUN_BATCHES, len(self._threads))
        except (BackendError, BlobCorrupt):
            return [batch]  # the request meets it too, and is tried again

    def _stream(self, blob: CachedBlob) -> None:
        """Have what is missing of *blob* as a stream, which pays for its pieces by itself."""
        from nydusd.cache.stream import stream_blob  # few mounts ask for it

        began = time.monotonic()
        size = stream_blob(blob, self._stop, self._may_go_on)
        self._note(size, time.monotonic() - began)
        if size:
            logger.info(
                "blob %s: %d bytes streamed, %d of %d chunks are here",
                blob.info.blob_id,
                size,
                blob.chunks.ready_count(),
                blob.chunks.count,
            )

    def _may_go_on(self, size: int) -> bool:
        self._give_way()
        return self._pay(self._stream_bucket, size)

    def _pay(self, bucket: TokenBucket | None, size: int) -> bool:
        """Wait until the bandwidth allows *size* bytes; false when prefetch is to end.

        What readers fetched in the meantime, who never wait for it, comes out of the same budget.
        """
        if bucket is None:
            return True
        with self._lock:
            fetched = self._fetched_by_readers()
            others, self._paid_for_readers = fetched - self._paid_for_readers, fetched
        bucket.charge(others)
        return bucket.take(size, self._stop)

    def _fetched_by_readers(self) -> int:
        counts = [blob.counters.snapshot() for blob in self._blobs]
        return sum(count["backend_bytes"] - count["prefetch_bytes"] for count in counts)

    def _take_batch(self, spans: Iterator[Span]) -> list[Span]:
        """As many spans as make a request for every thread."""
        batch: list[Span] = []
        size = 0
        for span in islice(spans, SPANS_AT_A_TIME):
            batch.append(span)
            size += span.length
            if size >= PLAIN_BATCHES * self._batch_size * len(self._threads):
                break
        return batch

    # --- the threads

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._turn:
                    work = next(self._work, None)
                if work is None:
                    return
                self._give_way()
                if not self._try(work):
                    return
        except Exception:
            self._failed = True
            logger.exception("prefetch ends early")
        finally:
            self._leave(1)

    def _leave(self, count: int) -> None:
        """*count* threads ask for nothing more."""
        with self._lock:
            self._running -= count
            last = self._running == 0
        if last:
            self._keepers.finish()

    def _end(self) -> None:
        """All threads have got what they could, and all of it has been kept."""
        with self._lock:
            self._end_time = time.time()
        self._done.set()

    def _keep(self, filling: Filling) -> None:
        """Decode and keep *filling*; on any thread, and without an exception."""
        began = time.monotonic()
        try:
            filling.keep()
        except Exception:
            self._failed = True
            self._stop.set()
            logger.exception("prefetch ends early")
        with self._lock:
            self._busy_seconds += time.monotonic() - began

    def _try(self, work: Work) -> bool:
        """Do *work*, again after a pause when it fails; false when prefetch is to end."""
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                filling = work()
            except (BackendError, BlobCorrupt) as exc:
                if self._retries >= RETRIES_MAX:
                    logger.warning("prefetch is given up after %d failures: %s", RETRIES_MAX, exc)
                    self._failed = True
                    self._stop.set()
                    return False
                self._retries += 1
                logger.info("prefetch is tried again: %s", exc)
                self._stop.wait(RETRY_SECONDS)
            else:
                if filling is None:
                    return True
                return self._hand_over(filling, time.monotonic() - began)
        return False

    def _hand_over(self, filling: Filling, seconds: float) -> bool:
        """Have *filling* kept, and pay for it; false when prefetch is to end."""
        size = filling.size
        self._note(size, seconds)
        if filling.bound or not self._keepers.offer(filling):
            self._keep(filling)
        return self._pay(self._bucket, size)

    def _note(self, size: int, seconds: float) -> None:
        if size:
            with self._lock:
                self._requests += 1
                self._data_bytes += size
                self._busy_seconds += seconds

    def _give_way(self) -> None:
        """Let readers that wait for a fetch go first, for a while."""
        for _ in range(GIVE_WAY_LOOKS):
            if waiting_readers() == 0 or self._stop.wait(GIVE_WAY_SECONDS):
                return


def describe(blob: CachedBlob) -> None:
    """Have the CI array of *blob*: work of prefetch that is not counted against its bandwidth."""
    blob.load_description()
