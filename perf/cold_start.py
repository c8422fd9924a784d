"""Cold container starts under the snapshotter: python -m perf.cold_start [ROUNDS]

From `pull` of an image that the host has never seen to the first line that its container prints:
real containerd, snapshotter, registry and runc (tests/snapshotter). One host for each --nydusd, all
up at once, taking turns. Prints seconds of all rounds as JSON. Needs root, /dev/fuse, and
`sh tests/snapshotter/prepare.sh`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.snapshotter.host import NAMESPACE, Host, pack, push_image
from tests.system.daemon import parse_command

DATA_FILES = 10
DATA_BYTES = 1_000_000


def make_root(folder: Path) -> Path:
    """A root file system with a shell and some data."""
    (folder / "bin").mkdir(parents=True)
    for name in ("data", "proc", "sys", "dev", "tmp", "etc", "run"):
        (folder / name).mkdir()
    shutil.copy(shutil.which("busybox") or "busybox", folder / "bin" / "busybox")
    for name in ("sh", "cat", "echo", "sleep"):
        (folder / "bin" / name).symlink_to("busybox")
    chance = random.Random(1)
    for number in range(DATA_FILES):
        (folder / "data" / f"f{number}").write_bytes(chance.randbytes(DATA_BYTES))
    return folder


def cold_start(host: Host, reference: str, name: str) -> float:
    """Seconds from the pull of *reference* to the first line of its container."""
    argv = ["ctr", "-a", str(host.folder / "c.sock"), "-n", NAMESPACE, "run", "--rm"]
    argv += ["--snapshotter", "nydus", reference, name, "sh", "-c", "echo up; cat /data/f1 >/tmp/f"]
    began = time.monotonic()
    host.pull(reference)
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n", host.logs()
        seconds = time.monotonic() - began
        process.communicate(timeout=30)
    host.remove_image(reference)
    return seconds


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rounds", nargs="?", type=int, default=5)
    parser.add_argument("--nydusd", action="append", help="a program; this tree's without any")
    parser.add_argument("--mode", default="dedicated", choices=("dedicated", "shared"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cs-") as name, contextlib.ExitStack() as hosts:
        work = Path(name)
        bootstrap, blob = pack(make_root(work / "tree"), work / "img")
        programs: list[str] = arguments.nydusd or []
        known: dict[str, Host] = {}
        for number, text in enumerate(["", *programs]):
            (work / f"h{number}").mkdir()
            command = parse_command(text).argv if text else None
            host = Host(
                work / f"h{number}", mode=arguments.mode, policy="failover", command=command
            )
            known[text or "this tree"] = hosts.enter_context(host)
        seconds: dict[str, list[float]] = {label: [] for label in known}
        for round_number in range(arguments.rounds):
            for label, host in known.items():
                reference = push_image(host.registry, f"cold/app{round_number}", bootstrap, blob)
                seconds[label].append(round(cold_start(host, reference, f"c{round_number}"), 3))
        medians = {label: statistics.median(found) for label, found in seconds.items()}
        print(json.dumps({"median": medians, "all": seconds}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
