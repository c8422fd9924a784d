"""`nydusctl top`: what a daemon does now, mount by mount, from the difference of two looks."""

import time
from typing import Any

from nydusd.base.record import NamedTuple
from nydusd.cli.control_client import ControlClient, RequestFailed
from nydusd.cli.control_text import share_text, size_text

READ = 4  # index of reads among the operations


class Look(NamedTuple):
    """What was counted at one moment (monotonic seconds)."""

    at: float
    state: str
    mounts: dict[str, dict[str, Any]]  # counters by mountpoint
    cache: dict[str, dict[str, Any]]  # of the mount's configuration
    in_flight: int


def look(client: ControlClient) -> Look:
    """Ask for everything; mounts that go meanwhile are left out."""
    info = client.ask("GET", "/api/v1/daemon")
    mounts: dict[str, dict[str, Any]] = {}
    cache: dict[str, dict[str, Any]] = {}
    for path, mount in (info["backend_collection"] or {}).items():
        try:
            mounts[path] = client.ask("GET", "/api/v1/metrics", id=path)
            cache[path] = client.ask(
                "GET", "/api/v1/metrics/blobcache", id=(mount["config"] or {}).get("id", "")
            )
        except RequestFailed:
            continue
    in_flight = client.ask("GET", "/api/v1/metrics/inflight") or []
    return Look(time.monotonic(), info["state"], mounts, cache, len(in_flight))


def top_text(before: Look, now: Look) -> str:
    """A table: the busiest mount first."""
    seconds = max(now.at - before.at, 1e-6)
    rows = sorted(
        (_row(path, before, now, seconds) for path in now.mounts),
        key=lambda row: (-row[0], row[1]),
    )
    lines = [
        f"{now.state}  mounts {len(now.mounts)}  requests in flight {now.in_flight}",
        "",
        f"{'MOUNT':<20} {'READS/S':>9} {'DATA/S':>12} {'LATENCY':>9} {'ERRORS':>7} "
        f"{'HITS':>7} {'OPS':>10}",
    ]
    return "\n".join(lines + [text for _, _, text in rows])


def _row(path: str, before: Look, now: Look, seconds: float) -> tuple[float, str, str]:
    counted = now.mounts[path]
    old = before.mounts.get(path)
    reads = counted["fop_hits"][READ] - (old["fop_hits"][READ] if old else 0)
    data = counted["data_read"] - (old["data_read"] if old else 0)
    micros = counted["fop_cumulative_latency_total"][READ] - (
        old["fop_cumulative_latency_total"][READ] if old else 0
    )
    cache = now.cache[path]
    latency = f"{micros / reads:.0f} us" if reads > 0 else "-"
    text = (
        f"{path:<20} {reads / seconds:>9.0f} {size_text(data / seconds) + '/s':>12} "
        f"{latency:>9} {sum(counted['fop_errors']):>7} "
        f"{share_text(cache['partial_hits'] + cache['whole_hits'], cache['total']):>7} "
        f"{sum(counted['fop_hits']):>10}"
    )
    return reads / seconds, path, text
