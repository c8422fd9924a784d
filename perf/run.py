"""Run scenarios against any number of nydusd binaries, interleaved, and write the figures as JSON.

`python -m perf.run SCENARIO... --nydusd rust=/usr/bin/nydusd --nydusd "python=python -m
nydusd.cli.nydusd" --work DIR --out FILE.json`, as root, on an otherwise idle machine. Within one
scenario the binaries take turns (A B A B ...), each turn with a fresh daemon; the files behind the
mount are locked in memory meanwhile, the caches of the mount are dropped before each workload.
docs/performance.md tells the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from perf.client import build_client
from perf.images import Image, fill_cache, make_image, make_tree
from perf.measure import DENTRIES, PAGES, LockedPages, commit, drop_caches, machine
from perf.workloads import KINDS, NEEDS_NO_DAEMON, Bench
from tests.system.daemon import Command, Daemon, mount_id, parse_command, v1_config

SCENARIOS = Path(__file__).with_name("scenarios")
BUSY_SITE = Path(__file__).with_name("busy")  # its sitecustomize keeps one Python thread busy
STALLED_START_S = 10


@dataclass(frozen=True, slots=True)
class Mode:
    """One program under test."""

    label: str
    tool: str  # nydusd or nydus-image
    command: Command


def parse_modes(tool: str, texts: list[str], busy: list[str]) -> list[Mode]:
    """Modes of *texts*, each `[label=]command`; those named in *busy* a second time, busy."""
    modes = []
    for text in texts:
        match = re.match(r"([a-z][\w.-]*)=(.*)", text)
        label, rest = match.groups() if match else ("", text)
        command = parse_command(rest)
        label = label or Path(command.argv[-1]).name
        if any(mode.label == label for mode in modes):
            label = f"{label}-{len(modes) + 1}"
        modes.append(Mode(label, tool, command))
        if label in busy:
            path = command.env.get("PYTHONPATH", os.environ.get("PYTHONPATH", "."))
            env = {**command.env, "PYTHONPATH": f"{BUSY_SITE}{os.pathsep}{path}"}
            modes.append(Mode(f"{label}+busy", tool, Command(command.argv, env)))
    return modes


class Scenario:
    """One scenario file, ready to be run: its image, caches and backend."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        self.name = name
        self.args = args
        self.work: Path = args.work
        self.table: dict[str, Any] = tomllib.loads((SCENARIOS / f"{name}.toml").read_text())
        wanted = {**self.table["image"], **args.image}
        self.image = Image(**wanted)
        self.workloads: list[dict[str, Any]] = self.table["workload"]
        self.tool = "nydus-image" if self.workloads[0]["kind"] == "create" else "nydusd"
        self.cache: str = self.table.get("cache", "none")

    def prepare(self) -> None:
        """Make tree, image and caches that are not there yet."""
        self.source = make_tree(self.work, self.image.tree)
        if self.tool == "nydus-image":
            return
        builder = parse_command(self.args.builder).argv
        self.folder = make_image(self.work, self.image, builder)
        filler = parse_command(self.args.filler)
        if self.cache == "complete":
            self.kept = fill_cache(self.work, self.folder, filler)
        elif self.cache == "part":
            self.kept = fill_cache(
                self.work, self.folder, filler, self.table["cached"], self.table["amplify"]
            )

    def backing(self) -> list[Path]:
        """The files that stay locked in memory over all turns."""
        if self.tool == "nydus-image":
            return [path for path in self.source.rglob("*") if path.is_file()]
        folder = self.kept if self.cache == "complete" else self.folder / "blobs"
        return [self.folder / "bootstrap", *(path for path in folder.iterdir() if path.is_file())]

    @contextlib.contextmanager
    def cache_folder(self) -> Iterator[Path]:
        """The cache folder of one turn."""
        if self.cache == "complete":
            yield self.kept
            return
        fresh = self.work / "cache-run"
        shutil.rmtree(fresh, ignore_errors=True)
        if self.cache == "empty":
            fresh.mkdir()
            yield fresh
        else:
            subprocess.run(["cp", "-r", "--sparse=always", self.kept, fresh], check=True)
            with LockedPages(fresh.glob("*.blob.data")):
                yield fresh
        shutil.rmtree(fresh)

    @contextlib.contextmanager
    def backend_folder(self) -> Iterator[Path]:
        """The blobs of one turn, behind a stalling mount if the scenario wants one."""
        blobs = self.folder / "blobs"
        if "delay_ms" not in self.table:
            yield blobs
            return
        mountpoint = self.work / "mnt-stalled"
        mountpoint.mkdir(exist_ok=True)
        words = ["-m", "perf.stalled", blobs, mountpoint, str(self.table["delay_ms"])]
        server = subprocess.Popen([sys.executable, *words])
        try:
            deadline = time.monotonic() + STALLED_START_S
            while mount_id(mountpoint.resolve()) is None:
                if server.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit("the stalled backend did not start")
                time.sleep(0.01)
            yield mountpoint
        finally:
            subprocess.run(["umount", "-l", mountpoint], check=False)
            server.wait()

    def turn(self, mode: Mode) -> Iterator[tuple[str, dict[str, Any]]]:
        """One turn of *mode*: workload name and measures, or `error`."""
        bench = Bench(
            work=self.work,
            client=build_client(self.work),
            command=mode.command,
            image=self.image,
            source=self.source,
            settle_s=self.args.settle,
        )
        if self.tool == "nydus-image":
            yield from self.measure(bench)
            return
        mountpoint = self.work / "mnt"
        mountpoint.mkdir(exist_ok=True)
        with self.backend_folder() as blobs, self.cache_folder() as cache:
            config = self.work / "run.json"
            amplify = self.table.get("amplify", 1 << 20)
            validate = self.table.get("validate", False)
            config.write_text(
                json.dumps(v1_config(blobs, cache, amplify=amplify, validate=validate))
            )
            bench.new_daemon = partial(
                Daemon,
                mode.command.argv,
                mountpoint,
                bootstrap=self.folder / "bootstrap",
                config=config,
                env=mode.command.env,
            )
            drop_caches(PAGES | DENTRIES)
            if self.workloads[0]["kind"] in NEEDS_NO_DAEMON:
                yield from self.measure(bench)
                return
            with bench.new_daemon() as bench.daemon:
                yield from self.measure(bench)

    def measure(self, bench: Bench) -> Iterator[tuple[str, dict[str, Any]]]:
        """Run all workloads of the scenario; one that fails does not end the others."""
        for workload in self.workloads:
            try:
                yield workload["name"], KINDS[workload["kind"]](bench, workload)
            except (SystemExit, OSError, RuntimeError, ValueError, KeyError) as problem:
                yield workload["name"], {"error": f"{type(problem).__name__}: {problem}"}


def version_of(mode: Mode) -> str:
    """The version that `--version` tells."""
    try:
        done = subprocess.run([*mode.command.argv, "--version"], capture_output=True, text=True)
    except OSError as problem:
        raise SystemExit(f"{mode.label}: {problem}") from problem
    match = re.search(r"Version:\s*(.+)", done.stdout)
    return match.group(1).strip() if match else f"of no version (exit {done.returncode})"


def run(scenario: Scenario, modes: list[Mode], runs: int) -> Iterator[dict[str, Any]]:
    """All turns of *scenario*: one sample for each workload, mode and run."""
    scenario.prepare()
    with LockedPages(scenario.backing()):
        for number in range(runs):
            for mode in modes:
                where = {"scenario": scenario.name, "mode": mode.label, "run": number}
                try:
                    for name, measures in scenario.turn(mode):
                        yield {**where, "workload": name, **measures}
                except (RuntimeError, OSError, subprocess.SubprocessError) as problem:
                    yield {**where, "workload": "*", "error": str(problem)}


def parse_arguments() -> argparse.Namespace:
    """Arguments, checked."""
    names = sorted(path.stem for path in SCENARIOS.glob("*.toml"))
    parser = argparse.ArgumentParser(
        prog="python -m perf.run",
        description="Run scenarios against nydusd binaries, interleaved.",
        epilog=f"scenarios: {' '.join(names)}",
    )
    parser.add_argument("scenario", nargs="*", help="all if none is named", metavar="SCENARIO")
    command = "[LABEL=]COMMAND"
    parser.add_argument(
        "--nydusd", action="append", default=[], metavar=command, help="the first one is the base"
    )
    parser.add_argument(
        "--nydus-image", action="append", default=[], metavar=command, help="the same for `create`"
    )
    parser.add_argument(
        "--busy", action="append", default=[], metavar="LABEL", help="measure it busy too"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--work", type=Path, required=True, help="trees, images, caches, mounts")
    parser.add_argument("--out", type=Path, required=True, help="figures, JSON")
    parser.add_argument(
        "--builder", default="nydus-image", help="makes the images that are missing"
    )
    parser.add_argument("--filler", help="fills the caches that are missing; the first --nydusd")
    parser.add_argument("--settle", type=float, default=2.0, help="longest wait for quiet, s")
    parser.add_argument("--tree", help="another tree than the scenarios', e.g. smoke")
    parser.add_argument("--fs-version", type=int, choices=(5, 6))
    parser.add_argument("--compressor")
    args = parser.parse_args()
    for name in args.scenario:
        if name not in names:
            parser.error(f"no scenario {name}; there are: {' '.join(names)}")
    args.scenario = args.scenario or names
    args.work = args.work.resolve()
    args.filler = args.filler or (args.nydusd[0].partition("=")[2] if args.nydusd else "nydusd")
    chosen = {"tree": args.tree, "version": args.fs_version, "compressor": args.compressor}
    args.image = {name: value for name, value in chosen.items() if value is not None}
    return args


def main() -> None:
    """Run what the command line asks for; write what is known after every sample."""
    args = parse_arguments()
    # An installed program has its bytecode; without it every start compiles the sources anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    modes = parse_modes("nydusd", args.nydusd, args.busy)
    modes += parse_modes("nydus-image", args.nydus_image, [])
    scenarios = [Scenario(name, args) for name in args.scenario]
    samples: list[dict[str, Any]] = []
    report = {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": commit(),
        "machine": machine(),
        "modes": [
            {"label": mode.label, "tool": mode.tool, "version": version_of(mode)} for mode in modes
        ],
        "image": args.image,
        "scenarios": {scenario.name: scenario.table for scenario in scenarios},
        "samples": samples,
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for scenario in scenarios:
        taking_part = [mode for mode in modes if mode.tool == scenario.tool]
        if not taking_part:
            print(f"{scenario.name}: no --{scenario.tool} given, left out", file=sys.stderr)
        for sample in run(scenario, taking_part, args.runs) if taking_part else ():
            samples.append(sample)
            short = {k: round(v, 3) if isinstance(v, float) else v for k, v in sample.items()}
            print(json.dumps(short), flush=True)
            args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
