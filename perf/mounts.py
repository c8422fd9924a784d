"""What one mount more costs a daemon, and how fast its API answers: python -m perf.mounts [NUMBER]

Mounts one image NUMBER times by the API, reads a file of each, unmounts all. Prints milliseconds
and KiB a mount and the latency of requests as JSON. Needs root and /dev/fuse. With --command it
measures another nydusd (the reference's takes 255 mounts, and has no counters for Prometheus).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from tests.system.control import UnixConnection, mount_body, wait_for
from tests.system.daemon import Daemon, parse_command
from tests.system.images import GOLDEN, Image

IMAGE = Image(GOLDEN / "v6-zstd")
PROBE = "file-20000"
ASKED = ("/api/v1/daemon", "/api/v1/metrics?id=/m/0", "/api/v1/metrics/inflight")
ROUNDS = 100


class Client:
    """One connection that stays open; times are milliseconds."""

    def __init__(self, sock: Path) -> None:
        self.connection = UnixConnection(sock)

    def ask(self, method: str, target: str, body: bytes | None = None) -> float:
        """How long the answer took; `RuntimeError` for an error."""
        began = time.perf_counter()
        self.connection.request(method, target, body)
        reply = self.connection.getresponse()
        data = reply.read()
        if reply.status not in (200, 204):
            raise RuntimeError(f"{method} {target}: {reply.status} {data!r}")
        return 1000 * (time.perf_counter() - began)


def resident_kib(daemon: Daemon) -> dict[str, int]:
    """All memory of the process, and what it shares with no file and nobody."""
    found = {}
    for line in Path(f"/proc/{daemon.pid}/smaps_rollup").read_text().splitlines():
        name, _, value = line.partition(":")
        if name in ("Rss", "Private_Dirty"):
            found[name] = int(value.split()[0])
    return found


def measure(daemon: Daemon, sock: Path, cache: Path, number: int) -> dict[str, object]:
    """The figures of *number* mounts in *daemon*."""
    client = Client(sock)
    body = json.dumps(mount_body(IMAGE, cache)).encode()
    client.ask("POST", "/api/v1/mount?mountpoint=/first", body)
    before = resident_kib(daemon)
    mounts = [
        client.ask("POST", f"/api/v1/mount?mountpoint=/m/{each}", body) for each in range(number)
    ]
    after = resident_kib(daemon)
    expected = (daemon.mountpoint / "first" / PROBE).read_bytes()
    readable = sum(
        (daemon.mountpoint / "m" / str(each) / PROBE).read_bytes() == expected
        for each in range(number)
    )
    asked = {
        target: round(statistics.median(client.ask("GET", target) for _ in range(ROUNDS)), 3)
        for target in ASKED
    }
    scrape: float | None
    try:
        scrape = client.ask("GET", "/metrics")
    except RuntimeError:
        scrape = None
    umounts = [
        client.ask("DELETE", f"/api/v1/mount?mountpoint=/m/{each}") for each in range(number)
    ]
    return {
        "mounts": number,
        "readable": readable,
        "mount_ms": {"median": statistics.median(mounts), "mean": statistics.mean(mounts)},
        "umount_ms": {"median": statistics.median(umounts), "mean": statistics.mean(umounts)},
        "kib_a_mount": {name: (after[name] - before[name]) / number for name in before},
        "request_ms": asked,
        "scrape_ms": scrape,
    }


def main() -> int:
    """Measure, print, and leave nothing behind."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", nargs="?", type=int, default=1000)
    parser.add_argument("--command", default=f"{sys.executable} -m nydusd.cli.nydusd")
    arguments = parser.parse_args()
    command = parse_command(arguments.command)
    with tempfile.TemporaryDirectory(prefix="nydusd-mounts-") as name:
        folder = Path(name)
        (folder / "mnt").mkdir()
        sock = folder / "api.sock"
        options = ("--apisock", str(sock))
        with Daemon(command.argv, folder / "mnt", options=options, env=command.env) as daemon:
            wait_for(sock)
            print(json.dumps(measure(daemon, sock, folder / "cache", arguments.number), indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
