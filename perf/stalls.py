"""How long readers wait when a daemon is killed or upgraded: python -m perf.stalls [ROUNDS]

Daemons that follow each other on one mount, as a supervisor has them follow, while a process reads
a file of it without pause (64 KiB, O_DIRECT, random places). Prints the longest read of each round,
and when which step was done, as JSON: medians in milliseconds, from the start of the successor of a
killed daemon, or from the moment when the old daemon of an upgrade was told to leave. Each --nydusd
takes its turn. Needs root and /dev/fuse.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.daemon import Command, parse_command, v1_config
from tests.system.images import GOLDEN, Image
from tests.system.succession import Succession, os_environ

IMAGE = Image(GOLDEN / "v6-zstd")
BLOCK = 64 << 10
BEFORE_S = 0.5  # reads before and after what is measured
AFTER_S = 0.3


def read_without_pause(path: str) -> None:
    """Read *path* until standard input ends; print when the longest read began and ended."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    blocks = max(1, os.fstat(fd).st_size // BLOCK)
    buffer = mmap.mmap(-1, BLOCK)
    chance = random.Random(1)
    os.set_blocking(0, False)
    longest = (0.0, 0.0, 0.0)
    count = 0
    print("reading", flush=True)
    while True:
        began = time.monotonic()
        os.preadv(fd, [buffer], chance.randrange(blocks) * BLOCK)
        ended = time.monotonic()
        longest = max(longest, (ended - began, began, ended))
        count += 1
        try:
            if count % 64 == 0 and os.read(0, 1) == b"":
                break
        except BlockingIOError:
            continue
    print(json.dumps({"reads": count, "longest": longest}), flush=True)


class Watched(Succession):
    """Notes when which step was done, in `marks`: seconds of the monotonic clock."""

    marks: dict[str, float]

    def __init__(self, command: Command, folder: Path, options: tuple[str, ...]) -> None:
        super().__init__(command, folder, options)
        self.marks = {}

    def note(self, what: str) -> None:
        """Remember that *what* is done now, the first time."""
        self.marks.setdefault(what, time.monotonic())

    def launch(self, *more: str, command: Command | None = None) -> None:
        """See `Succession`."""
        self.note("launched")
        super().launch(*more, command=command)

    def await_state(self, wanted: str) -> None:
        """See `Succession`."""
        super().await_state(wanted)
        self.note(f"is {wanted}")

    def order(self, target: str, socket: Path | None = None) -> None:
        """See `Succession`."""
        if target == "/exit":
            self.note("told to leave")
        super().order(target, socket)
        self.note(f"answered {target}")

    def await_end(self, process: subprocess.Popen[bytes]) -> None:
        """See `Succession`."""
        super().await_end(process)
        self.note("old one has ended")


def measure_round(succession: Watched, change: Callable[[], None], file: Path) -> dict[str, float]:
    """One *change* under a reader of *file*: the longest read, and the steps; milliseconds."""
    reader = subprocess.Popen(
        [sys.executable, "-m", "perf.stalls", "--read", str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os_environ(),
    )
    assert reader.stdin is not None
    assert reader.stdout is not None
    reader.stdout.readline()
    time.sleep(BEFORE_S)
    succession.marks.clear()
    change()
    time.sleep(AFTER_S)
    reader.stdin.close()
    report = json.loads(reader.stdout.read())
    reader.wait()
    longest, _, ended = report["longest"]
    marks = succession.marks
    zero = marks.get("told to leave", marks["launched"])
    steps = {what: 1000 * (when - zero) for what, when in marks.items()}
    return {"longest read": 1000 * longest, **steps, "first read": 1000 * (ended - zero)}


def measure(command: Command, rounds: int) -> dict[str, object]:
    """The figures of one program."""
    found: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="nydusd-stalls-") as name:
        folder = Path(name)
        (folder / "cache").mkdir()
        (folder / "config").write_text(json.dumps(v1_config(IMAGE.blobs, folder / "cache")))
        options = ("--config", str(folder / "config"), "--bootstrap", str(IMAGE.bootstrap))
        with Watched(command, folder, options) as succession:
            files = [path for path in succession.mountpoint.rglob("*") if path.is_file()]
            file = max(files, key=lambda path: path.stat().st_size)
            file.read_bytes()
            for label, change in (
                ("failover", succession.fail_over),
                ("upgrade", succession.upgrade),
            ):
                all_rounds = [measure_round(succession, change, file) for _ in range(rounds)]
                found[label] = {
                    what: round(statistics.median(each[what] for each in all_rounds), 1)
                    for what in sorted(all_rounds[0], key=lambda what: all_rounds[0][what])
                    if what != "longest read"
                }
                longest = [round(each["longest read"], 1) for each in all_rounds]
                found[f"{label}, longest read"] = {
                    "median": statistics.median(longest),
                    "all": longest,
                }
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--nydusd", action="append", help="a command line; several take turns")
    parser.add_argument("--read", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        read_without_pause(arguments.read)
        return 0
    for text in arguments.nydusd or [f"{sys.executable} -m nydusd.cli.nydusd"]:
        figures = measure(parse_command(text), arguments.rounds)
        print(json.dumps({"command": text, **figures}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
