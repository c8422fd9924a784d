"""Backends that count: how often they were asked, for how much, how long it took, what failed.

A wrapper around each backend of a pool. Classes and fields are those of the API (spec: http-api,
metrics of backends). Called by fetching threads, many at a time.
"""

from __future__ import annotations

import threading
import time
from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Any

from nydusd.backend.interface import BlobBackend, BlobReader
from nydusd.backend.open import open_backend
from nydusd.base.errors import BackendError
from nydusd.base.tracing import tracer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

    from nydusd.base.spans import Attributes
    from nydusd.config.model import Backend

# Upper bounds; the last class has none. Sizes exclusive, times inclusive.
SIZE_BOUNDS_BYTES = (1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 512 << 10, 1 << 20)
LATENCY_BOUNDS_MS = (1, 20, 50, 100, 500, 1000, 2000)
CLASSES = 8
SHOWN_TYPES = {"s3": "oss"}  # the reference's name for both


class BackendMetrics:
    """What has been asked of one backend of *type*."""

    def __init__(self, type: str) -> None:
        self.type = type
        self._lock = threading.Lock()  # guards what follows
        self._errors = 0
        self._amount = 0  # bytes
        self._milliseconds = 0
        self._counts = [[0] * CLASSES for _ in range(CLASSES)]  # [size class][latency class]

    def record(self, size: int, seconds: float, failed: bool) -> None:
        """Count one request for *size* bytes."""
        milliseconds = int(seconds * 1000)
        size_class = bisect_right(SIZE_BOUNDS_BYTES, size)
        latency_class = bisect_left(LATENCY_BOUNDS_MS, milliseconds)
        with self._lock:
            self._errors += failed
            self._amount += size
            self._milliseconds += milliseconds
            self._counts[size_class][latency_class] += 1

    def snapshot(self) -> dict[str, Any]:
        """All of it, as the API shows it."""
        with self._lock:
            counts = [list(row) for row in self._counts]
            errors, amount, milliseconds = self._errors, self._amount, self._milliseconds
        sizes = [sum(row) for row in counts]
        return {
            "backend_type": SHOWN_TYPES.get(self.type, self.type),
            "read_count": sum(sizes),
            "read_errors": errors,
            "read_amount_total": amount,
            "read_cumulative_latency_millis_total": milliseconds,
            "read_cumulative_latency_millis_dist": [
                sum(column) for column in zip(*counts, strict=True)
            ],
            "read_count_block_size_dist": sizes,
            "read_latency_sizes_dist": counts,
        }


def nobody_counts(_size: int, _seconds: float, _failed: bool) -> None:
    """In the place of a counter where another one counts."""


class MeteredReader(BlobReader):
    """*reader*, with what is read counted."""

    def __init__(
        self,
        reader: BlobReader,
        blob_id: str,
        metrics: BackendMetrics,
        on_error: Callable[[str], None],
    ) -> None:
        self._reader = reader
        self._blob_id, self._backend_type = blob_id, metrics.type  # for traces
        self._record: Callable[[int, float, bool], None] = metrics.record
        self._on_error = on_error
        if reader.counts_attempts:  # what it does not tell by itself would be counted twice
            reader.on_attempt, self._record = metrics.record, nobody_counts

    def size(self) -> int:
        """See `BlobReader`."""
        return self._reader.size()

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """See `BlobReader`."""
        if (taker := tracer()) is None:
            self._read_into(buffer, offset, background)
            return
        about: Attributes = {
            "nydusd.blob": self._blob_id,
            "nydusd.offset": offset,
            "nydusd.size": memoryview(buffer).nbytes,
            "nydusd.backend": self._backend_type,
            "nydusd.prefetch": background,
        }
        with taker.span("fetch", about):
            self._read_into(buffer, offset, background)

    def _read_into(self, buffer: Buffer, offset: int, background: bool) -> None:
        began = time.monotonic()
        failed = True
        try:
            self._reader.read_into(buffer, offset, background=background)
            failed = False
        except BackendError as exc:
            self._on_error(str(exc))
            raise
        finally:
            self._record(memoryview(buffer).nbytes, time.monotonic() - began, failed)

    def stream(self, offset: int) -> Iterator[Buffer]:
        """See `BlobReader`; each piece counts as one request."""
        began = time.monotonic()
        try:
            for piece in self._reader.stream(offset):
                size = memoryview(piece).nbytes
                self._record(size, time.monotonic() - began, False)
                yield piece
                began = time.monotonic()
        except BackendError as exc:
            self._on_error(str(exc))
            self._record(0, time.monotonic() - began, True)
            raise

    def distrust(self, offset: int, size: int) -> bool:
        """See `BlobReader`."""
        return self._reader.distrust(offset, size)

    def close(self) -> None:
        """See `BlobReader`."""
        self._reader.close()


class MeteredBackend(BlobBackend):
    """The backend that *config* names, with what is asked of it counted in *metrics*."""

    def __init__(self, config: Backend, on_error: Callable[[str], None]) -> None:
        self._backend = open_backend(config)
        self._on_error = on_error
        self.metrics = BackendMetrics(config.type)

    def reader(self, blob_id: str) -> BlobReader:
        """See `BlobBackend`."""
        reader = self._backend.reader(blob_id)
        return MeteredReader(reader, blob_id, self.metrics, self._on_error)

    def change_setting(self, name: str, value: str) -> bool:
        """See `BlobBackend`."""
        return self._backend.change_setting(name, value)

    def close(self) -> None:
        """See `BlobBackend`."""
        self._backend.close()


def metered_opener(on_error: Callable[[str], None]) -> Callable[[Backend], BlobBackend]:
    """`open_backend` for a pool, with counters; *on_error* is told of each read that failed."""
    return lambda config: MeteredBackend(config, on_error)
