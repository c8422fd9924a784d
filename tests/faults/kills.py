"""Kill a process at each call that changes the cache directory; see what the next one serves.

`python -m tests.faults.kills FOLDER STRIDE` tries every STRIDE-th call and prints what it did as
JSON. A program of its own, since it forks: nothing else may run in it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.cache.made import MadeBlob
from tests.faults.scenarios import (
    SCENARIOS,
    Scenario,
    check,
    fault,
    opened,
    prepare,
    read_spans,
    set_boot,
)
from tests.faults.tracer import Call, follow, isolated, shorten

PAGE_BYTES = 4096
WAYS = ("before", "after", "torn")


def crash(scenario: Scenario, folder: Path, number: int, way: str) -> tuple[bool, str]:
    """Whether call *number* was reached and the process killed there, and what went wrong then."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    blob = scenario.make()
    begun = isolated(lambda: prepare(scenario, blob, folder))
    assert not begun, begun
    boot = 2 if scenario.before == "half-synced" else 1

    def at(pid: int, call: Call) -> bool:
        if call.number != number:
            return False
        if way == "torn" and (call.name != "pwrite" or call.args[2] <= PAGE_BYTES):
            return False  # a write inside of a page is made whole or not at all
        if way == "torn" and not call.after:
            shorten(pid)
        return call.after == (way != "before")

    killed = follow(partial(in_boot, boot, fault, scenario, blob, folder), at)
    if not killed:
        return False, ""
    return True, isolated(partial(in_boot, boot, check, scenario, blob, folder))


def in_boot(
    boot: int,
    step: Callable[[Scenario, MadeBlob, Path], None],
    scenario: Scenario,
    blob: MadeBlob,
    folder: Path,
) -> None:
    """Take *step* in *boot*, in a process that has just begun."""
    set_boot(boot, folder)
    step(scenario, blob, folder)


def beside(scenario: Scenario, folder: Path, number: int) -> tuple[bool, str]:
    """As `crash` before call *number*, with a second process that has the directory open."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    blob = scenario.make()
    ready_read, ready_write = os.pipe()
    go_read, go_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            set_boot(1, folder)
            work, _ = opened(blob, scenario, folder)
            read_spans(work, [blob.span(0)])
            os.write(ready_write, b"x")
            os.read(go_read, 1)
            good = all(
                read_spans(work, [blob.span(index)]) == content
                for index, content in enumerate(blob.chunks)
            )
            work.close()
            status = 0 if good else 2
        finally:
            os._exit(status)
    os.read(ready_read, 1)
    killed = follow(
        partial(in_boot, 1, fault, scenario, blob, folder),
        lambda _, call: call.number == number and not call.after,
    )
    os.write(go_write, b"x")
    _, status = os.waitpid(pid, 0)
    for end in (ready_read, ready_write, go_read, go_write):
        os.close(end)
    wrong = f"the second process ended with {status}" if status else ""
    wrong = wrong or isolated(partial(in_boot, 1, check, scenario, blob, folder))
    return killed, wrong


def main(folder: Path, stride: int) -> None:
    """The points of every scenario, each way beginning at another call."""
    logging.getLogger("nydusd").setLevel(logging.CRITICAL)
    points: dict[str, int] = {}
    wrong = []
    for order, (name, scenario) in enumerate(SCENARIOS.items()):
        points[name] = 0
        ways = (*WAYS, "beside") if scenario.during == "read" else WAYS
        for turn, way in enumerate(ways):
            for number in range((order + turn) % stride, calls_of(scenario, folder), stride):
                if way == "beside":
                    killed, problem = beside(scenario, folder, number)
                else:
                    killed, problem = crash(scenario, folder, number, way)
                points[name] += killed
                if problem:
                    wrong.append(f"{name}, {way} call {number}: {problem}")
    json.dump({"points": points, "wrong": wrong}, sys.stdout)


def calls_of(scenario: Scenario, folder: Path) -> int:
    """How many calls there are to be killed at."""
    number = 0
    while crash(scenario, folder, number, "before")[0]:
        number += 16
    return number


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
