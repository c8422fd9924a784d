"""The kinds of work a scenario names: each does its work once and gives its measures.

A kind is a function `(bench, workload) -> {measure: value}`, found by name in `KINDS`. *workload*
is the table of the scenario file. What a measure means stands in docs/performance.md.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perf.client import list_files, write_list
from perf.images import Image, create_command
from perf.measure import (
    DENTRIES,
    PAGES,
    drop_caches,
    medians,
    per_item,
    settle,
    timed,
)
from tests.system.daemon import Command, Daemon

FIO = Path(__file__).with_name("fio")
GATHER_S = 1.0  # until all stalled readers wait


@dataclass(slots=True)
class Bench:
    """What a workload is given: one program under test and the image it serves."""

    work: Path
    client: Path
    command: Command
    image: Image
    source: Path  # the tree the image was made of
    settle_s: float
    daemon: Daemon | None = None  # running, except for workloads that start their own
    new_daemon: Callable[[], Daemon] | None = None

    @property
    def mount(self) -> Path:
        """Where the image is mounted."""
        assert self.daemon is not None
        return self.daemon.mountpoint

    def files(self, folder: str) -> Path:
        """A list of the files below *folder* as the mount names them.

        Made from the source tree: walking the mount would warm its dentries.
        """
        names = list_files(self.source / folder)
        seen = [str(self.mount / Path(name).relative_to(self.source)) for name in names]
        return write_list(self.work / "client.list", seen)

    def timed(self, command: list[object], env: dict[str, str] | None = None) -> Any:
        """Time *command* beside the running daemon, after the machine has settled."""
        assert self.daemon is not None
        settle(self.settle_s)
        before = self.daemon.disk_read_bytes()
        cost, text = timed(command, self.daemon.cpu_seconds, env)
        cost.daemon_disk_mib = (self.daemon.disk_read_bytes() - before) / (1 << 20)
        return cost, text


Workload = dict[str, Any]
Measures = dict[str, float]


def start(bench: Bench, workload: Workload) -> Measures:
    """Start the daemon and stop it again."""
    assert bench.new_daemon is not None
    samples = []
    for _ in range(workload["repeat"]):
        daemon = bench.new_daemon()
        settle(bench.settle_s)
        with daemon:
            cpu_ms = daemon.cpu_seconds() * 1e3  # what a busy machine does not change
            samples.append({"start_ms": daemon.start_seconds * 1e3, "start_cpu_ms": cpu_ms})
    return medians(samples)


def version(bench: Bench, workload: Workload) -> Measures:
    """Ask for the version."""
    samples = []
    for _ in range(workload["repeat"]):
        settle(bench.settle_s)
        cost, _ = timed([*bench.command.argv, "--version"])
        samples.append({"version_ms": cost.wall_s * 1e3})
    return medians(samples)


def client_work(bench: Bench, workload: Workload, *arguments: object) -> Measures:
    """Run the client once; it takes the time itself, so that loading its list does not count."""
    cost, text = bench.timed([bench.client, *arguments])
    result = json.loads(text)
    cost.wall_s = result["seconds"]
    return per_item(cost, workload["unit"], result["items"], result["bytes"])


def walk(bench: Bench, workload: Workload) -> Measures:
    """Look at every entry of the tree."""
    samples = []
    for _ in range(workload["repeat"]):
        drop_caches(DENTRIES)
        samples.append(client_work(bench, workload, "walk", bench.mount))
    return medians(samples)


def read(bench: Bench, workload: Workload) -> Measures:
    """Open and read all files of a folder."""
    names = bench.files(workload["folder"])
    drop_caches(PAGES | DENTRIES)
    return client_work(bench, workload, "read", names, workload["processes"])


def fio_command(bench: Bench, workload: Workload) -> tuple[list[object], dict[str, str]]:
    """The fio command of *workload* and the environment that its job file reads."""
    target = bench.mount / workload["file"]
    size = (bench.source / workload["file"]).stat().st_size
    given = {
        "TARGET": target,
        "SIZE": size // workload["jobs"],
        "JOBS": workload["jobs"],
        "BS": workload["bs"],
        "DIRECT": workload.get("direct", 0),
        "IOS": workload.get("ios", 0),
        "SECONDS": workload.get("seconds", 0),
    }
    job = FIO / f"{workload['job']}.fio"
    env = {name: str(value) for name, value in given.items()}
    return ["fio", "--output-format=json", job], env


def fio(bench: Bench, workload: Workload) -> Measures:
    """Run a job file; rate and latencies are fio's own."""
    command, env = fio_command(bench, workload)
    drop_caches(PAGES | DENTRIES)
    timed(["fio", "--version"])  # brings its many libraries back into memory
    cost, text = bench.timed(command, env)
    return fio_measures(cost, text, workload["unit"])


def fio_measures(cost: Any, text: str, unit: str) -> Measures:
    """Measures out of fio's JSON *text*; its wall time leaves out the start of its processes."""
    result = json.loads(text[text.index("{") :])["jobs"][0]["read"]
    measures = per_item(cost, unit, result["total_ios"], result["io_bytes"])
    measures["rate"] = result["bw_bytes"] / (1 << 20) if unit == "MiB" else result["iops"]
    percentiles = result["clat_ns"].get("percentile", {})
    for name, key in (("p50_us", "50.000000"), ("p99_us", "99.000000"), ("p999_us", "99.900000")):
        measures[name] = percentiles.get(key, 0) / 1e3
    return measures


def stalled(bench: Bench, workload: Workload) -> Measures:
    """Cached random reads, first alone, then while readers wait for the backend.

    `kept` is the part of the rate that is left.
    """
    free = fio(bench, workload)
    names = bench.files(workload["folder"])
    readers = subprocess.Popen(
        [bench.client, "read", names, str(workload["readers"])],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        time.sleep(GATHER_S)
        command, env = fio_command(bench, workload)
        assert bench.daemon is not None
        cost, text = timed(command, bench.daemon.cpu_seconds, env)
        still_reading = readers.poll() is None
    finally:
        os.killpg(readers.pid, signal.SIGKILL)
        readers.wait()
    if not still_reading:
        raise SystemExit("the stalled readers ended during the measurement: the result is void")
    measures = fio_measures(cost, text, workload["unit"])
    measures["free_rate"] = free["rate"]
    measures["kept"] = measures["rate"] / free["rate"]
    return measures


def memory(bench: Bench, workload: Workload) -> Measures:
    """Resident memory after a look at the tree, and how much many opens add."""
    assert bench.daemon is not None
    names = bench.files(workload["folder"])
    count = len(names.read_text().splitlines())
    timed([bench.client, "open", names, 1])
    before = bench.daemon.status()
    for _ in range(0, workload["opens"], count):
        drop_caches(DENTRIES)
        timed([bench.client, "open", names, 1])
    after = bench.daemon.status()
    return {
        "rss_mib": before["VmRSS"] / 1024,
        "anonymous_mib": before["RssAnon"] / 1024,
        "growth_mib": (after["VmRSS"] - before["VmRSS"]) / 1024,
        "peak_mib": after["VmHWM"] / 1024,
        "threads": after["Threads"],
    }


def peak(bench: Bench, workload: Workload) -> Measures:
    """Read all files of a folder; how far resident memory rose meanwhile."""
    assert bench.daemon is not None
    before = bench.daemon.status()
    measures = read(bench, workload)
    after = bench.daemon.status()
    measures["over_idle_mib"] = (after["VmHWM"] - before["VmRSS"]) / 1024
    return measures


def create(bench: Bench, workload: Workload) -> Measures:
    """Build an image of the tree."""
    image = Image(bench.image.tree, workload.get("version", 6), bench.image.compressor)
    out = bench.work / "create-out"
    shutil.rmtree(out, ignore_errors=True)
    (out / "blobs").mkdir(parents=True)
    os.sync()  # what earlier work left to write is not this work's
    settle(bench.settle_s)
    command = create_command(bench.command.argv, image, bench.source, out)
    cost, _ = timed(list(command), env=bench.command.env)
    names = list_files(bench.source)
    shutil.rmtree(out)
    amount = sum(Path(name).stat().st_size for name in names)
    measures = per_item(cost, workload["unit"], len(names), amount)
    del measures["cpu_per_item"], measures["daemon_cpu_s"]  # there is no daemon
    return measures


KINDS: dict[str, Callable[[Bench, Workload], Measures]] = {
    kind.__name__: kind for kind in (start, version, walk, read, fio, stalled, memory, peak, create)
}
NEEDS_NO_DAEMON = {"start", "version", "create"}
