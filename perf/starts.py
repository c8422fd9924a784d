"""Many daemons that start at once, and that fail over at once: python -m perf.starts [NUMBER]

Starts NUMBER daemons of one image, each under a supervisor of its own; kills all of them, starts
all of them again and has each take its mount back. Prints as JSON, in seconds from the first
launch, when the first, the middle and the last of them was there, and their memory in KiB. Needs
root and /dev/fuse.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.control import connect
from tests.system.daemon import Command, parse_command, v1_config
from tests.system.images import GOLDEN, Image
from tests.system.succession import Succession

IMAGE = Image(GOLDEN / "v6-zstd")
WAIT_S = 60
LOOK_S = 0.005


def times(fleet: list[Succession], began: float, is_there: Callable[[Succession], bool]) -> dict:
    """When *is_there* became true of the first, the middle and the last."""
    found: dict[int, float] = {}
    while len(found) < len(fleet):
        for number, each in enumerate(fleet):
            if number not in found and is_there(each):
                found[number] = time.monotonic() - began
        if time.monotonic() - began > WAIT_S:
            raise TimeoutError(f"{len(fleet) - len(found)} are not there")
        time.sleep(LOOK_S)
    ordered = sorted(found.values())
    return {
        "first": round(ordered[0], 2),
        "median": round(statistics.median(ordered), 2),
        "last": round(ordered[-1], 2),
    }


def listens(succession: Succession) -> bool:
    """Whether the control socket takes connections."""
    try:
        connect(succession.socket).close()
    except OSError:
        return False
    return True


def resident_kib(succession: Succession) -> int:
    """The resident memory of the daemon."""
    lines = Path(f"/proc/{succession.process.pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith("VmRSS"))
    return int(line.split()[1])


def measure(fleet: list[Succession]) -> dict[str, object]:
    """The figures of one program."""
    began = time.monotonic()
    for each in fleet:
        each.launch()
    running = times(fleet, began, lambda each: each.state() == "RUNNING")
    for each in fleet:
        each.send()
        list(each.mountpoint.iterdir())
    memory = sorted(resident_kib(each) for each in fleet)
    for each in fleet:
        each.process.kill()
    for each in fleet:
        each.process.wait()
    began = time.monotonic()
    for each in fleet:
        each.launch()
    listening = times(fleet, began, listens)
    served = []
    for each in fleet:
        each.take_over()
        each.serve()
        served.append(time.monotonic() - began)
    return {
        "start, RUNNING": running,
        "failover, listening": listening,
        "failover, all RUNNING": round(served[-1], 2),
        "resident KiB": {"least": memory[0], "most": memory[-1]},
    }


def run(command: Command, number: int) -> dict[str, object]:
    """Make the fleet, measure it, and leave nothing of it behind."""
    with (
        tempfile.TemporaryDirectory(prefix="nydusd-starts-") as name,
        contextlib.ExitStack() as undo,
    ):
        folder = Path(name)
        (folder / "cache").mkdir()
        (folder / "config").write_text(json.dumps(v1_config(IMAGE.blobs, folder / "cache")))
        options = ("--config", str(folder / "config"), "--bootstrap", str(IMAGE.bootstrap))
        fleet = []
        for each in range(number):
            (folder / str(each)).mkdir()
            fleet.append(Succession(command, folder / str(each), options))
            undo.callback(fleet[-1].__exit__)
        return measure(fleet)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("number", nargs="?", type=int, default=50)
    parser.add_argument("--nydusd", action="append", help="a command line; several take turns")
    arguments = parser.parse_args()
    for text in arguments.nydusd or [f"{sys.executable} -m nydusd.cli.nydusd"]:
        figures = run(parse_command(text), arguments.number)
        print(json.dumps({"command": text, **figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
