"""Images from a registry at a distance: time, requests and bytes of daemons beside each other.

`python -m perf.remote --work DIR --nydusd [LABEL=]COMMAND … [--delay MS …] [--rate BYTES …]` as
root. The first `--nydusd` is the base of the ratios. Every sample starts a fresh server, a fresh
daemon and an empty cache; programs take turns. Prints a table in Markdown.

| work | what is timed |
| --- | --- |
| start | one reader opens and reads 5 MiB of files that lie all over the image |
| whole | four readers read all files |
| prefetch | from the mount until every chunk is in the cache, `prefetch_all` with 8 threads |
| hedge | the 99th percentile of single reads while one mirror of two is slow; the last program |
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.system.daemon import Command, Daemon, parse_command

SMALL_FILES = 700  # of 2 to 96 KiB
BIG_FILES = 4  # of 8 MiB
START_BYTES = 5 << 20
READERS = 4
PREFETCH_WAIT_S = 120
HEDGE_READS = 300
SLOW_MS = 500
MAP_HEADER_BYTES = 4096


class Program(NamedTuple):
    """A daemon under test."""

    label: str
    command: Command


class Sample(NamedTuple):
    """One run of one work."""

    seconds: float
    requests: int
    bytes: int


class Server:
    """A `perf.remote_server` of the blobs in *folder*; a context manager."""

    def __init__(self, folder: Path, delay_ms: int, rate: float) -> None:
        words = ["-m", "perf.remote_server", "0", str(folder), str(delay_ms), str(rate)]
        self.process = subprocess.Popen(
            [sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.host = f"127.0.0.1:{self._answer()['port']}"

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(20)

    def tell(self, line: str) -> dict[str, int]:
        """Send *line*; the counts."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, int]:
        assert self.process.stdout is not None
        answer: dict[str, int] = json.loads(self.process.stdout.readline())
        return answer


class Bench:
    """The image, and what every sample of it has in common."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self.image = work / "remote-image"
        if not (self.image / "done").exists():
            self._make()
        self.blobs = self.image / "blobs"
        self.small = sorted(path.name for path in (self.image / "tree" / "small").iterdir())

    def _make(self) -> None:
        shutil.rmtree(self.image, ignore_errors=True)
        rng = random.Random(5)
        tree = self.image / "tree"
        (tree / "small").mkdir(parents=True)
        (self.image / "blobs").mkdir()
        alphabet = bytes(range(97, 113))
        for number in range(SMALL_FILES):
            size = rng.randrange(2 << 10, 96 << 10)
            (tree / "small" / f"f{number:04d}").write_bytes(bytes(rng.choices(alphabet, k=size)))
        for number in range(BIG_FILES):
            (tree / f"big{number}").write_bytes(bytes(rng.choices(alphabet, k=8 << 20)))
        program = [sys.executable, "-m", "nydusd.cli.nydus_image", "create", "--fs-version", "6"]
        output = ["--bootstrap", str(self.image / "bootstrap"), "--blob-dir"]
        subprocess.run(
            [*program, *output, str(self.image / "blobs"), "--compressor", "zstd", str(tree)],
            check=True,
            capture_output=True,
        )
        (self.image / "done").touch()

    @contextmanager
    def mounted(self, program: Program, backend: dict[str, Any], **more: Any) -> Iterator[Daemon]:
        """A fresh daemon with an empty cache, reading from *backend*."""
        cache = self.work / "remote-cache"
        shutil.rmtree(cache, ignore_errors=True)
        cache.mkdir()
        mountpoint = self.work / "remote-mount"
        mountpoint.mkdir(exist_ok=True)
        config = self.work / "remote.json"
        config.write_text(
            json.dumps(
                {
                    "device": {
                        "backend": {"type": "registry", "config": backend},
                        "cache": {"type": "blobcache", "config": {"work_dir": str(cache)}},
                    },
                    "mode": "direct",
                    "amplify_io": 1 << 20,
                    **more,
                }
            )
        )
        argv, environment = program.command.argv, program.command.env
        with Daemon(
            argv,
            mountpoint,
            bootstrap=self.image / "bootstrap",
            config=config,
            env=environment,
            probe="big0",
        ) as daemon:
            yield daemon

    def start(self, mount: Path) -> None:
        """Read 5 MiB of small files, in an order that has nothing to do with the image's."""
        names = list(self.small)
        random.Random(3).shuffle(names)
        left = START_BYTES
        for name in names:
            left -= len((mount / "small" / name).read_bytes())
            if left <= 0:
                return

    def whole(self, mount: Path) -> None:
        """Read every file with four readers."""
        names = [f"small/{name}" for name in self.small] + [f"big{n}" for n in range(BIG_FILES)]

        def read(first: int) -> None:
            for name in names[first::READERS]:
                (mount / name).read_bytes()

        threads = [threading.Thread(target=read, args=(first,)) for first in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def prefetch(self, mount: Path) -> None:
        """Wait until the chunk map in the cache has every bit."""
        del mount
        cache = self.work / "remote-cache"
        count = self.chunks()
        deadline = time.monotonic() + PREFETCH_WAIT_S
        while time.monotonic() < deadline:
            # Versions of the original name the file differently.
            if any(is_full(path.read_bytes(), count) for path in cache.glob("*chunk_map")):
                return
            time.sleep(0.005)
        raise TimeoutError("the prefetch has not ended")

    def chunks(self) -> int:
        """Chunks of the image's blob."""
        from nydusd.rafs.load import load_bootstrap

        (blob,) = load_bootstrap(str(self.image / "bootstrap")).blobs
        return blob.chunk_count


def is_full(data: bytes, count: int) -> bool:
    """Whether the chunk map in *data* says that *count* chunks are here."""
    if data[12:16] == b"PAMM":
        return True
    return sum(byte.bit_count() for byte in data[MAP_HEADER_BYTES:]) >= count


WORKS: dict[str, Callable[[Bench, Path], None]] = {
    "start": Bench.start,
    "whole": Bench.whole,
    "prefetch": Bench.prefetch,
}
PREFETCH = {"enable": True, "threads_count": 8, "merging_size": 1 << 20, "prefetch_all": True}


def sample(bench: Bench, program: Program, work: str, delay_ms: int, rate: float) -> Sample:
    """One run."""
    with Server(bench.blobs, delay_ms, rate) as server:
        backend = {"scheme": "http", "host": server.host, "repo": "perf/image"}
        more = {"fs_prefetch": PREFETCH} if work == "prefetch" else {}
        with bench.mounted(program, backend, **more) as daemon:
            began = time.perf_counter()
            WORKS[work](bench, daemon.mountpoint)
            seconds = time.perf_counter() - began
            counts = server.tell("stats")
    return Sample(seconds, counts["requests"], counts["bytes"])


def hedge(bench: Bench, program: Program, slow: str, *, hedged: bool = True) -> tuple[float, int]:
    """p99 in ms of single reads with two mirrors, and the requests of all; *slow*: which one is."""
    with (
        Server(bench.blobs, 5, 0) as origin,
        Server(bench.blobs, 5, 0) as one,
        Server(bench.blobs, 5, 0) as two,
    ):
        backend = {
            "scheme": "http",
            "host": origin.host,
            "repo": "perf/image",
            "mirrors": [{"host": f"http://{each.host}"} for each in (one, two)],
            "hedged_reads": hedged,
        }
        with bench.mounted(program, backend, amplify_io=0) as daemon:
            times = []
            for number, name in enumerate(bench.small[:HEDGE_READS]):
                if number == HEDGE_READS // 10 and slow:
                    one.tell(f"delay {SLOW_MS}")
                began = time.perf_counter()
                (daemon.mountpoint / "small" / name).read_bytes()
                times.append(time.perf_counter() - began)
        requests = sum(each.tell("stats")["requests"] for each in (origin, one, two))
    return statistics.quantiles(times, n=100)[98] * 1e3, requests


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nydusd", action="append", required=True)
    parser.add_argument("--delay", type=int, nargs="*", default=[0, 5, 20], help="ms")
    parser.add_argument(
        "--rate", type=float, nargs="*", default=[0, 12.5e6], help="bytes/s; 0: any"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[*WORKS, "hedge"])
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    programs = []
    for text in options.nydusd:
        label, equals, command = text.partition("=")
        if not equals or "/" in label or " " in label:
            label, command = text, text
        programs.append(Program(label, parse_command(command)))
    bench = Bench(options.work)
    print(
        "| work | round trip | bandwidth | program | seconds | times the first | requests | MiB |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for work in [each for each in options.only if each in WORKS]:
        for delay_ms in options.delay:
            for rate in options.rate:
                report(bench, programs, work, delay_ms, rate, options.runs)
    if "hedge" in options.only:
        for label, slow, on in (("sound", "", True), ("slow", "one", True), ("off", "one", False)):
            p99, requests = hedge(bench, programs[-1], slow, hedged=on)
            print(f"hedge, mirror {label}: p99 {p99:.1f} ms, {requests} requests")


def report(
    bench: Bench, programs: list[Program], work: str, delay_ms: int, rate: float, runs: int
) -> None:
    """Measure one row for each of *programs*, by turns, and print them."""
    taken: dict[str, list[Sample]] = {program.label: [] for program in programs}
    for _ in range(runs):
        for program in programs:
            taken[program.label].append(sample(bench, program, work, delay_ms, rate))
    base = 0.0
    for label, samples in taken.items():
        seconds = statistics.median(each.seconds for each in samples)
        base = base or seconds
        requests = statistics.median(each.requests for each in samples)
        mib = statistics.median(each.bytes for each in samples) / (1 << 20)
        shown = f"{rate * 8 / 1e6:.0f} Mbit/s" if rate else "any"
        print(
            f"| {work} | {delay_ms} ms | {shown} | {label} | {seconds:.2f} | "
            f"{base / seconds:.2f} | {requests:.0f} | {mib:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("mounts need root")
    main()
