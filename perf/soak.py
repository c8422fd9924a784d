"""Many readers on many images of a registry for a long time: no wrong byte, no growth.

`python -m perf.soak --work DIR [--nydusd COMMAND] [--seconds 600] [--plain]` as root. One daemon
has eight images, from a registry with a token server whose tokens live a minute. 64 readers
compare what they read with the trees (`perf.soak_reader`). So that misses keep coming, readers
drop pages before every other read, the caches of some images are limited to a part of them, and
every two seconds one image is unmounted, its cache removed, and mounted again. Each second a line
of JSON is written to DIR/samples; the end is a table. Exit code 1 for an error or growth.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from perf.soak_reader import Board, lock_file
from tests.servers.distribution import AUTH, Distribution, TokenServer
from tests.system.control import ask, wait_for
from tests.system.daemon import Command, Daemon, parse_command
from tests.system.images import LAYERS

REPO = "perf/soak"
SMALL_FILES = 60  # of 1 to 96 KiB
LARGE_FILES = 3  # of 1 to 4 MiB
LIMIT_BYTES = 4 << 20  # of the caches that have a limit: a third of their image
PROCESSES = 8
TOKEN_SECONDS = 60
CHURN_SECONDS = 2.0
END_SECONDS = 180
SETTLE_SECONDS = 60.0
GROWTH = 0.05  # of resident memory after the first minute
GROWTH_KIB = 2048  # or so much: what is less than a buffer or two says nothing
LETTERS = bytes(97 + each % 16 for each in range(256))  # random bytes by it compress to half


class Recipe(NamedTuple):
    """How one of the images is made, and how it is kept."""

    version: int
    compressor: str
    chunk_size: int = 1 << 20
    cache: str = "blobcache"
    compressed: bool = False
    validate: bool = False
    limited: bool = False
    prefetch: bool = False
    mirrored: bool = False


RECIPES = {
    "v6-zstd": Recipe(6, "zstd", limited=True),
    "v6-lz4": Recipe(6, "lz4_block", 0x10000, validate=True, limited=True),
    "v6-none": Recipe(6, "none", mirrored=True),
    "v6-compressed": Recipe(6, "zstd", 0x40000, compressed=True),
    "v5-zstd": Recipe(5, "zstd", validate=True),
    "v5-lz4": Recipe(5, "lz4_block", 0x10000, prefetch=True),
    "v6-dummy": Recipe(6, "zstd", cache=""),
    "gzip": Recipe(6, "gzip", limited=True),  # a reference to a gzip layer, of tests/golden
}


class Sample(NamedTuple):
    """The daemon at one moment: memory in KiB, and counts since the start."""

    seconds: float
    cpu_seconds: float
    resident: int
    anonymous: int
    threads: int
    files: int
    mappings: int
    requests: int
    reads: int
    bytes: int
    errors: int


class Outcome(NamedTuple):
    """What a run was like."""

    samples: list[Sample]
    settle: float  # seconds of the start that do not count
    complaints: list[str]  # of the readers

    def window(self, last: bool) -> list[Sample]:
        """The first tenth (and at least five samples) after the settling, or the last."""
        counted = [each for each in self.samples if each.seconds >= self.settle]
        size = max(5, len(counted) // 10)
        return counted[-size:] if last else counted[:size]

    def medians(self, name: str) -> tuple[float, float]:
        """The median of the field *name* at the beginning and at the end."""
        first, last = (
            statistics.median(getattr(each, name) for each in self.window(last))
            for last in (False, True)
        )
        return first, last

    def faults(self, growth_kib: int = GROWTH_KIB) -> list[str]:
        """Everything that should not have been, a line each.

        Resident memory may grow by *growth_kib*, or by `GROWTH` where that is more.
        """
        lines = list(self.complaints)
        end = self.samples[-1]
        if end.errors:
            lines.append(f"{end.errors} of {end.reads} reads were wrong")
        first, last = self.medians("resident")
        if last > max(first * (1 + GROWTH), first + growth_kib):
            lines.append(f"resident memory grew from {first:.0f} to {last:.0f} KiB")
        for name, slack in (("files", 16), ("threads", 16), ("mappings", 64)):
            first, last = self.medians(name)
            if last > first + slack:
                lines.append(f"{name} grew from {first:.0f} to {last:.0f}")
        third = len(self.samples) // 3
        if end.requests - self.samples[-third].requests < third:
            lines.append("hardly a request at the end: nothing was missing")
        return lines


def make_images(work: Path, builder: list[str]) -> None:
    """Trees and images below *work*, made now where they are not there."""
    if (work / "made").exists():
        return
    for name, recipe in RECIPES.items():
        tree, image = work / "trees" / name, work / "images" / name
        shutil.rmtree(tree, ignore_errors=True)
        shutil.rmtree(image, ignore_errors=True)
        if recipe.compressor == "gzip":
            shutil.copytree(LAYERS / "gzip", image)
            layer = max((image / "blobs").iterdir(), key=lambda path: path.stat().st_size)
            with tarfile.open(layer) as tar:
                tar.extractall(tree, filter="tar")
            continue
        make_tree(tree, random.Random(name))
        (image / "blobs").mkdir(parents=True)
        words = ["--fs-version", str(recipe.version), "--compressor", recipe.compressor]
        words += ["--chunk-size", hex(recipe.chunk_size), "--bootstrap", str(image / "bootstrap")]
        words += ["--blob-dir", str(image / "blobs"), str(tree)]
        subprocess.run([*builder, "create", *words], check=True, capture_output=True)
    (work / "made").touch()


def make_tree(root: Path, rng: random.Random) -> None:
    """Files of *root*, of random letters."""

    def write(path: Path, least: int, most: int) -> None:
        path.write_bytes(rng.randbytes(rng.randrange(least, most)).translate(LETTERS))

    root.mkdir(parents=True)
    for number in range(SMALL_FILES):
        folder = root / f"d{number % 6}"
        folder.mkdir(exist_ok=True)
        write(folder / f"f{number:03d}", 1 << 10, 96 << 10)
    for number in range(LARGE_FILES):
        write(root / f"large{number}", 1 << 20, 4 << 20)


class Run:
    """The images of *work* in one daemon, its readers, and what is seen of them."""

    def __init__(self, work: Path, daemon: Daemon, sock: Path, registry: Distribution,
                 mirror: str, readers: int, pause: float, *, plain: bool) -> None:  # fmt: skip
        self._work = work
        self._daemon = daemon
        self._sock = sock
        self._registry = registry
        self._mirror = mirror
        self._plain = plain
        self._round = 0
        self._locks = {
            name: os.open(lock_file(work, number), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            for number, name in enumerate(sorted(RECIPES))
        }
        (work / "board").unlink(missing_ok=True)
        self._board = Board(work / "board", readers)
        self._each = readers // PROCESSES
        self._words = [str(readers), str(pause)]
        self._log = (registry.folder / "log").open("rb")
        self._requests = 0

    def mount(self, name: str) -> None:
        """Mount image *name* with an empty cache."""
        self._round += 1
        cache = self._work / "caches" / f"{name}-{self._round}"
        cache.mkdir(parents=True)
        body = {
            "fs_type": "rafs",
            "source": str(self._work / "images" / name / "bootstrap"),
            "config": json.dumps(self._config(RECIPES[name], name, cache)),
        }
        self._change("POST", name, body)

    def _config(self, recipe: Recipe, name: str, cache: Path) -> dict[str, Any]:
        backend: dict[str, Any] = {
            "scheme": "http",
            "host": self._registry.host,
            "repo": REPO,
            "auth": AUTH,
            "timeout": 30,
        }
        if recipe.mirrored:
            backend["mirrors"] = [{"host": self._mirror, "auth_through": True}]
        kept: dict[str, Any] = {"type": "blobcache", "config": {"work_dir": str(cache)}}
        if not self._plain:
            kept = {
                "type": recipe.cache,
                "compressed": recipe.compressed,
                "validate": recipe.validate,
                "config": {"work_dir": str(cache)},
            }
            if recipe.limited:
                kept["config"]["size_limit"] = LIMIT_BYTES
        prefetch = {"enable": recipe.prefetch, "threads_count": 2, "prefetch_all": True}
        return {
            "device": {
                "id": name,
                "backend": {"type": "registry", "config": backend},
                "cache": kept,
            },
            "mode": "direct",
            "digest_validate": False,
            "iostats_files": False,
            "enable_xattr": True,
            "amplify_io": 1 << 20,
            "fs_prefetch": prefetch,
        }

    def _change(self, method: str, name: str, body: Any = None) -> None:
        reply = ask(self._sock, method, "/api/v1/mount", body, mountpoint=f"/{name}")
        if reply.status != 204:
            raise RuntimeError(f"{method} {name}: {reply.status} {reply.body!r}")

    def renew(self, name: str) -> None:
        """Unmount *name*, remove its cache, mount it again, while its readers are elsewhere."""
        number = sorted(RECIPES).index(name)
        self._board.rest(number, on=True)
        fcntl.flock(self._locks[name], fcntl.LOCK_EX)
        try:
            self._change("DELETE", name)
            for cache in (self._work / "caches").glob(f"{name}-*"):
                shutil.rmtree(cache)
            self.mount(name)
        finally:
            self._board.rest(number, on=False)
            fcntl.flock(self._locks[name], fcntl.LOCK_UN)

    def run(self, seconds: float) -> Outcome:
        """Readers on all images for *seconds*."""
        samples: list[Sample] = []
        with self._readers() as processes, (self._work / "samples").open("w") as out:
            began = time.monotonic()
            renewed = began
            names = sorted(RECIPES)
            while (now := time.monotonic()) - began < seconds:
                if now - renewed >= CHURN_SECONDS:
                    renewed = now
                    self.renew(names[self._round % len(names)])
                samples.append(self._sample(time.monotonic() - began))
                out.write(json.dumps(samples[-1]._asdict()) + "\n")
                out.flush()
                time.sleep(max(0.0, now + 1 - time.monotonic()))
            self._board.end()
            told = "".join(process.communicate(timeout=END_SECONDS)[0] for process in processes)
        complaints = told.splitlines()
        complaints += [f"a reader ended with {p.returncode}" for p in processes if p.returncode]
        samples.append(self._sample(time.monotonic() - began))
        return Outcome(samples, min(SETTLE_SECONDS, seconds / 3), complaints)

    @contextmanager
    def _readers(self) -> Iterator[list[subprocess.Popen[str]]]:
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "perf.soak_reader", str(self._work),
                 str(number * self._each), str(self._each), *self._words],
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for number in range(PROCESSES)
        ]  # fmt: skip
        try:
            yield processes
        finally:
            self._board.end()
            for process in processes:
                try:
                    process.wait(END_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def _sample(self, seconds: float) -> Sample:
        status = self._daemon.status()
        reads, size, errors = self._board.counts()
        self._requests += self._log.read().count(b'"GET /v2/')
        return Sample(
            round(seconds, 1),
            round(self._daemon.cpu_seconds(), 3),
            status["VmRSS"],
            status["RssAnon"],
            status["Threads"],
            self._daemon.open_files(),
            len(Path(f"/proc/{self._daemon.pid}/maps").read_text().splitlines()),
            self._requests,
            reads,
            size,
            errors,
        )

    def close(self) -> None:
        """Close what was opened."""
        self._log.close()
        for lock in self._locks.values():
            os.close(lock)


def soak(
    work: Path,
    command: Command,
    seconds: float,
    *,
    readers: int = 64,
    pause: float = 0.02,
    plain: bool = False,
) -> Outcome:
    """What a run of *seconds* in the folder *work* was like.

    *pause* is the mean of what a reader waits between two reads. *plain*: one kind of cache and no
    limit, which other nydusds have as well.
    """
    make_images(work, [sys.executable, "-m", "nydusd.cli.nydus_image"])
    shutil.rmtree(work / "caches", ignore_errors=True)
    mountpoint = work / "mnt"
    mountpoint.mkdir(exist_ok=True)
    sock = work / "api.sock"
    sock.unlink(missing_ok=True)
    with ExitStack() as stack:
        tokens = stack.enter_context(TokenServer(work / "tokens"))
        tokens.life = TOKEN_SECONDS
        registry, mirror = (
            stack.enter_context(Distribution(work / name, tokens=tokens))
            for name in ("registry", "mirror")
        )
        for name, recipe in RECIPES.items():
            for blob in (work / "images" / name / "blobs").iterdir():
                registry.push(REPO, blob.read_bytes())
                if recipe.mirrored:
                    mirror.push(REPO, blob.read_bytes())
        options = ("--apisock", str(sock), "-l", "error")
        daemon = Daemon(command.argv, mountpoint, options=options, env=command.env)
        stack.enter_context(daemon)
        wait_for(sock)
        run = Run(work, daemon, sock, registry, f"http://{mirror.host}", readers, pause,
                  plain=plain)  # fmt: skip
        stack.callback(run.close)
        for name in sorted(RECIPES):
            run.mount(name)
        outcome = run.run(seconds)
        status = daemon.stop()
    if status != 0:
        outcome.complaints.append(f"the daemon ended with {status}")
    outcome.complaints.extend(daemon.text.splitlines()[:20])
    return outcome


def report(outcome: Outcome) -> str:
    """The figures of *outcome* as a table in Markdown."""
    end = outcome.samples[-1]
    lines = [
        f"{end.reads} reads, {end.bytes >> 20} MiB compared, {end.requests} requests,"
        f" {end.errors} errors in {end.seconds:.0f} s;"
        f" {1e6 * end.cpu_seconds / end.reads:.0f} us of the daemon's CPU a read",
        "",
        f"| | from {outcome.settle:.0f} s | at the end | most |",
        "| --- | --- | --- | --- |",
    ]
    for name, label in (
        ("resident", "resident memory, KiB"),
        ("anonymous", "of it anonymous, KiB"),
        ("threads", "threads"),
        ("files", "open files"),
        ("mappings", "mappings"),
    ):
        first, last = outcome.medians(name)
        most = max(getattr(each, name) for each in outcome.samples)
        lines.append(f"| {label} | {first:.0f} | {last:.0f} | {most} |")
    return "\n".join(lines)


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--nydusd", default=f"{sys.executable} -m nydusd.cli.nydusd")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--readers", type=int, default=64, help=f"a multiple of {PROCESSES}")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between two reads")
    parser.add_argument("--plain", action="store_true", help="caches that other nydusds have too")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    outcome = soak(
        options.work.resolve(),
        parse_command(options.nydusd),
        options.seconds,
        readers=options.readers,
        pause=options.pause,
        plain=options.plain,
    )
    print(report(outcome))
    faults = outcome.faults()
    print("\n".join(faults))
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
