"""Hostile inputs by the thousand: `python -m tests.hostile.campaign --inputs 20000 --seed 1`.

Worker processes make and run inputs; this one watches them. A parser that takes more than a
second of CPU or 256 MiB, that raises anything but an error of ours, that hangs or ends its process
is a failure: the input is kept and named, and the next one takes its turn. An input follows from
target, seed and number alone: `--replay '{"target": ..., "seed": ..., "index": ...}'` runs it
again.
"""

from __future__ import annotations

import argparse
import json
import logging
import mmap
import os
import resource
import struct
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from tempfile import TemporaryFile
from typing import IO

CPU_SECONDS_MAX = 1.0
MEMORY_MAX = 256 << 20  # bytes that one input may add
STALL_SECONDS = 30.0  # of the wall, on a machine that others use too
FAILURES_MAX = 20
STATE = struct.Struct("<QQd")  # number of the running input, inputs done, when it began
KEPT = Path("build/hostile")


def plan(inputs: int, only: str | None) -> list[tuple[str, int]]:
    """Targets and how many inputs each gets."""
    from tests.hostile.targets import TARGETS

    chosen = [target for target in TARGETS if only in (None, target.name)]
    shares = sum(target.share for target in chosen)
    return [(target.name, -(-inputs * target.share // shares)) for target in chosen]


def which(number: int, planned: list[tuple[str, int]]) -> tuple[str, int]:
    """Target of input *number* of a campaign, and its number there."""
    for name, count in planned:
        if number < count:
            return name, number
        number -= count
    raise IndexError(number)


# in a worker


def run_one(name: str, seed: int, index: int) -> tuple[bytes, str | None, bool]:
    """One input: its bytes, what is wrong with how it was taken, and whether it came far."""
    from tests.hostile.targets import BY_NAME

    target = BY_NAME[name]
    rng = Random(f"{name}:{seed}:{index}")
    about, raw = target.input(rng)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begin = time.process_time()
    far = False
    try:
        far = target.run(raw, about, rng)
    except BaseException:
        return raw, traceback.format_exc(), False
    seconds = time.process_time() - begin
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) << 10
    if seconds > CPU_SECONDS_MAX:
        return raw, f"took {seconds:.2f} s of CPU", far
    if grown > MEMORY_MAX:
        return raw, f"took {grown >> 20} MiB", far
    return raw, None, far


def work(arguments: argparse.Namespace) -> int:
    """Run every `jobs`-th input of the campaign; failures and counts are lines of JSON."""
    logging.disable()  # a line for each broken image would be all that is seen
    state = mmap.mmap(arguments.state, STATE.size)
    planned = plan(arguments.inputs, arguments.only)
    total = sum(count for _, count in planned)
    done: Counter[str] = Counter()
    far: Counter[str] = Counter()
    count = 0
    for number in range(arguments.first, total, arguments.jobs):
        state[:] = STATE.pack(number, count, time.monotonic())
        name, index = which(number, planned)
        raw, wrong, came_far = run_one(name, arguments.seed, index)
        count += 1
        done[name] += 1
        far[name] += came_far
        if wrong is not None:
            print(json.dumps({"number": number, "wrong": wrong, "input": raw.hex()}), flush=True)
    state[:] = STATE.pack(total, count, time.monotonic())
    print(json.dumps({"done": done, "far": far}), flush=True)
    return 0


# in the one that watches


@dataclass
class Worker:
    """One process, and where it is in its inputs."""

    first: int
    process: subprocess.Popen[bytes]
    state: mmap.mmap
    output: IO[bytes]
    ended: bool = False


@dataclass
class Campaign:
    """What is to do, and what came of it."""

    arguments: argparse.Namespace
    planned: list[tuple[str, int]]
    done: Counter[str] = field(default_factory=Counter)
    far: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def start(self, first: int) -> Worker:
        holder = TemporaryFile()  # noqa: SIM115 - it lives as long as the worker
        holder.truncate(STATE.size)
        state = mmap.mmap(holder.fileno(), STATE.size)
        state[:] = STATE.pack(first, 0, time.monotonic())
        output = TemporaryFile()  # noqa: SIM115 - as above
        command = [sys.executable, "-m", "tests.hostile.campaign", "--work", "--first", str(first)]
        command += ["--state", str(holder.fileno()), *self.same_arguments()]
        process = subprocess.Popen(
            command, stdout=output, stderr=output, pass_fds=[holder.fileno()]
        )
        holder.close()
        return Worker(first, process, state, output)

    def same_arguments(self) -> list[str]:
        given = self.arguments
        words = [
            "--inputs",
            str(given.inputs),
            "--seed",
            str(given.seed),
            "--jobs",
            str(given.jobs),
        ]
        return words + (["--only", given.only] if given.only else [])

    def fail(self, number: int, wrong: str, raw: bytes | None = None) -> None:
        """Keep and tell a failure."""
        from tests.hostile.targets import BY_NAME

        name, index = which(number, self.planned)
        seed = self.arguments.seed
        if raw is None:
            raw = BY_NAME[name].input(Random(f"{name}:{seed}:{index}"))[1]
        KEPT.mkdir(parents=True, exist_ok=True)
        path = KEPT / f"{name.replace(' ', '-')}-{seed}-{index}"
        path.write_bytes(raw)
        again = json.dumps({"target": name, "seed": seed, "index": index})
        self.failures.append(f"{path}: {wrong.strip()}\n  again: --replay '{again}'")
        print(f"FAILED {self.failures[-1]}", flush=True)

    def collect(self, worker: Worker) -> bool:
        """Take what an ended worker said; whether it came to its end."""
        worker.ended = True
        worker.output.seek(0)
        text = worker.output.read().decode(errors="replace")
        worker.output.close()
        complete = False
        other = []
        for line in text.splitlines():
            try:
                told = json.loads(line)
                if "done" in told:
                    self.done.update(told["done"])
                    self.far.update(told["far"])
                    complete = True
                else:
                    self.fail(told["number"], told["wrong"], bytes.fromhex(told["input"]))
            except (ValueError, TypeError, KeyError):
                other.append(line)
        if not complete:
            number, count, _ = STATE.unpack(worker.state[:])
            self.done["of dead workers"] += count
            last = "\n".join(other[-40:])
            self.fail(number, f"worker ended with {worker.process.returncode}:\n{last}")
        return complete

    def run(self) -> None:
        """Run every input, restarting behind one that ended its worker."""
        total = sum(count for _, count in self.planned)
        jobs = self.arguments.jobs
        workers = [self.start(first) for first in range(jobs)]
        while workers and len(self.failures) < FAILURES_MAX:
            time.sleep(0.1)
            for worker in list(workers):
                number, _, began = STATE.unpack(worker.state[:])
                stalled = number < total and time.monotonic() - began > STALL_SECONDS
                if worker.process.poll() is None and not stalled:
                    continue
                if stalled:
                    worker.process.kill()
                worker.process.wait()
                workers.remove(worker)
                if not self.collect(worker) and number + jobs < total:
                    workers.append(self.start(number + jobs))
        for worker in workers:
            worker.process.kill()
            worker.process.wait()
            worker.output.close()


def replay(text: str) -> int:
    told = json.loads(text)
    raw, wrong, far = run_one(told["target"], told["seed"], told["index"])
    print(f"{len(raw)} bytes, came {'far' if far else 'not past the first checks'}")
    print(wrong or "no failure")
    return int(wrong is not None)


def parse(words: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--only", help="one target")
    parser.add_argument("--replay", help="one input, as a failure names it")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--state", type=int, help=argparse.SUPPRESS)
    return parser.parse_args(words)


def main(words: list[str]) -> int:
    arguments = parse(words)
    if arguments.replay:
        return replay(arguments.replay)
    if arguments.work:
        return work(arguments)
    begin = time.monotonic()
    campaign = Campaign(arguments, plan(arguments.inputs, arguments.only))
    campaign.run()
    told = ", ".join(
        f"{name} {count} ({campaign.far[name]} far)" for name, count in campaign.done.items()
    )
    print(
        f"hostile inputs: {sum(campaign.done.values())} of seed {arguments.seed} in "
        f"{time.monotonic() - begin:.0f} s, {len(campaign.failures)} failures: {told}"
    )
    return int(bool(campaign.failures))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
