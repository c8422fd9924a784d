"""All counters as text for Prometheus, under the names that the snapshotter's exporter has.

Labels say which mount (`mountpoint`) or backend; of what the snapshotter exports under a name of
its own, name and meaning are the same (docs/operations/metrics.md).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from nydusd.api.http import Response
from nydusd.daemon import metrics
from nydusd.daemon.errors import NoCounter

if TYPE_CHECKING:
    from nydusd.api.context import Context
    from nydusd.api.http import Request
    from nydusd.daemon.singleton import AnyDaemon

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
HUNG_SECONDS: Final = 10  # as the snapshotter's default
READ: Final = 4  # index of reads among the operations

# (name, type, help, key in the JSON table)
CACHE_SERIES: Final = (
    ("partial_hits", "counter", "Reads answered from the cache file", "partial_hits"),
    (
        "whole_hits",
        "counter",
        "Reads of a checked or stored cache, not answered straight from it",
        "whole_hits",
    ),
    ("total_requests", "counter", "Reads that reached the cache", "total"),
    ("entries_count", "counter", "Chunks that this daemon has put on local disk", "entries_count"),
    ("prefetch_data_bytes", "counter", "Bytes prefetched", "prefetch_data_amount"),
    ("prefetch_requests_count", "counter", "Requests of prefetch", "prefetch_requests_count"),
    ("prefetch_workers", "gauge", "Prefetch threads", "prefetch_workers"),
    (
        "prefetch_unmerged_chunks",
        "counter",
        "Chunks in the requests of prefetch",
        "prefetch_unmerged_chunks",
    ),
    (
        "prefetch_cumulative_time_millis",
        "counter",
        "Time of all prefetch requests together",
        "prefetch_cumulative_time_millis",
    ),
    (
        "buffered_backend_size",
        "gauge",
        "Bytes fetched and not kept or dropped yet",
        "buffered_backend_size",
    ),
)
BACKEND_SERIES: Final = (
    ("read_count", "Requests to the backend", "read_count"),
    ("read_errors", "Requests to the backend that failed", "read_errors"),
    ("read_bytes", "Bytes asked of the backend", "read_amount_total"),
    (
        "read_latency_millis",
        "Time of all requests together",
        "read_cumulative_latency_millis_total",
    ),
)


class Exposition:
    """Lines of the text format, one family after another."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def family(self, name: str, kind: str, help_text: str) -> None:
        """Begin the series *name*."""
        self._lines.append(f"# HELP {name} {help_text}")
        self._lines.append(f"# TYPE {name} {kind}")

    def sample(self, name: str, labels: str, value: float) -> None:
        """One value; *labels* as `label` makes them, or empty."""
        self._lines.append(f"{name}{{{labels}}} {value}" if labels else f"{name} {value}")

    def histogram(
        self, name: str, labels: str, bounds: Iterable[int], counts: Sequence[int], total: int
    ) -> None:
        """The classes *counts* by their upper *bounds*, the last without; *total*: their sum."""
        comma = "," if labels else ""
        names = [*(str(bound) for bound in bounds), "+Inf"]
        for bound, count in zip(names, accumulate(counts), strict=True):
            self.sample(f"{name}_bucket", f'{labels}{comma}le="{bound}"', count)
        self.sample(f"{name}_sum", labels, total)
        self.sample(f"{name}_count", labels, sum(counts))

    def text(self) -> str:
        """All of it."""
        return "\n".join(self._lines) + "\n"


def label(name: str, value: str) -> str:
    """One label, its value escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped.encode("utf-8", "backslashreplace").decode()}"'


def get_metrics(context: Context, _request: Request) -> Response:
    """Everything that is counted."""
    out = Exposition()
    write_daemon(out, context.daemon)
    write_filesystems(out, context.daemon)
    write_caches(out, context.daemon)
    write_backends(out, context.daemon)
    return Response(200, out.text().encode(), CONTENT_TYPE)


def write_daemon(out: Exposition, daemon: AnyDaemon) -> None:
    """State, mounts, requests in flight."""
    out.family("nydusd_running", "gauge", "1 while the daemon serves its mount")
    out.sample("nydusd_running", "", int(daemon.shown_state == "RUNNING"))
    out.family("nydusd_mounts", "gauge", "Mounted file systems")
    out.sample("nydusd_mounts", "", len(daemon.mounts.list()))
    session = daemon.session
    since = [] if session is None else [row[3] for row in session.in_flight()]
    out.family("nydusd_inflight_requests", "gauge", "Requests of the kernel not answered yet")
    out.sample("nydusd_inflight_requests", "", len(since))
    out.family("nydusd_hung_io_counts", "gauge", f"Of them, older than {HUNG_SECONDS} seconds")
    hung = sum(time.time() - each >= HUNG_SECONDS for each in since)
    out.sample("nydusd_hung_io_counts", "", hung)
    out.family("nydusd_backend_events", "gauge", "Errors that are kept as events")
    out.sample("nydusd_backend_events", "", daemon.events.snapshot()["total_errors"])


def write_filesystems(out: Exposition, daemon: AnyDaemon) -> None:
    """What is counted of each mount."""
    rows = [
        (label("mountpoint", path), metrics.stats_of(mount).snapshot())
        for path, mount in metrics.images(daemon.mounts).items()
    ]
    out.family("nydusd_total_read_bytes", "counter", "Bytes given to reads")
    for labels, counted in rows:
        out.sample("nydusd_total_read_bytes", labels, counted["data_read"])
    out.family("nydusd_read_hits", "counter", "Reads that succeeded")
    for labels, counted in rows:
        out.sample("nydusd_read_hits", labels, counted["fop_hits"][READ])
    out.family("nydusd_read_errors", "counter", "Reads that failed")
    for labels, counted in rows:
        out.sample("nydusd_read_errors", labels, counted["fop_errors"][READ])
    out.family("nydusd_cumulative_read_block_bytes", "histogram", "Reads by the size asked for")
    sizes = [bound - 1 for bound in metrics.SIZE_BOUNDS_BYTES]
    for labels, counted in rows:
        out.histogram(
            "nydusd_cumulative_read_block_bytes",
            labels,
            sizes,
            counted["block_count_read"],
            counted["data_read"],
        )
    out.family("nydusd_read_latency_microseconds", "histogram", "Reads by the time they took")
    for labels, counted in rows:
        out.histogram(
            "nydusd_read_latency_microseconds",
            labels,
            metrics.LATENCY_BOUNDS_MICROSECONDS,
            counted["read_latency_dist"],
            counted["read_ns"] // 1000,
        )
    for name, key, help_text in (
        ("nydusd_file_operation_hits", "fop_hits", "Operations that succeeded"),
        ("nydusd_file_operation_errors", "fop_errors", "Operations that failed"),
    ):
        out.family(name, "counter", help_text)
        for labels, counted in rows:
            for fop, count in zip(metrics.FOP_NAMES, counted[key], strict=True):
                out.sample(name, f'{labels},operation="{fop}"', count)


def write_caches(out: Exposition, daemon: AnyDaemon) -> None:
    """What the caches of the mounts have done."""
    rows = [
        (label("mountpoint", path), metrics.cache_metrics([mount]))
        for path, mount in metrics.images(daemon.mounts).items()
    ]
    for name, kind, help_text, key in CACHE_SERIES:
        out.family(f"nydusd_cache_{name}", kind, help_text)
        for labels, counted in rows:
            out.sample(f"nydusd_cache_{name}", labels, counted[key])
    out.family("nydusd_cache_prefetch_duration_millis", "gauge", "Time from its start to its end")
    for labels, counted in rows:
        out.sample("nydusd_cache_prefetch_duration_millis", labels, prefetch_millis(counted))
    out.family("nydusd_cache_all_ready", "gauge", "1 when all of the image is on local disk")
    for labels, counted in rows:
        out.sample("nydusd_cache_all_ready", labels, int(counted["data_all_ready"]))


def prefetch_millis(counted: dict[str, Any]) -> int:
    """How long a prefetch took; 0 while it runs."""
    if not counted["prefetch_end_time_secs"]:
        return 0
    seconds: int = counted["prefetch_end_time_secs"] - counted["prefetch_begin_time_secs"]
    millis: int = counted["prefetch_end_time_millis"] - counted["prefetch_begin_time_millis"]
    return max(0, 1000 * seconds + millis)


def write_backends(out: Exposition, daemon: AnyDaemon) -> None:
    """What was asked of the mounts' backends."""
    rows = []
    for path, mount in metrics.images(daemon.mounts).items():
        try:
            counted = metrics.backend_metrics(mount)
        except NoCounter:
            continue
        kind = label("backend_type", counted["backend_type"])
        rows.append((f"{label('mountpoint', path)},{kind}", counted))
    for name, help_text, key in BACKEND_SERIES:
        out.family(f"nydusd_backend_{name}", "counter", help_text)
        for labels, counted in rows:
            out.sample(f"nydusd_backend_{name}", labels, counted[key])
