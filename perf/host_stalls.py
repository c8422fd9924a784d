"""How long a container's reads wait for a killed or upgraded daemon: python -m perf.host_stalls

Under the real containerd, snapshotter (recover_policy failover), registry and runc
(tests/snapshotter): fio reads a file of a running container without pause (64 KiB, O_DIRECT,
random places, each block's checksum looked at), and the daemon is killed, or upgraded by the
snapshotter's system socket. One host for each --nydusd, all up at once, taking turns. Prints the
longest reads in milliseconds as JSON, and ends with 1 when a read has failed or the daemon did not
come back. Needs root, /dev/fuse, fio, and `sh tests/snapshotter/prepare.sh`.

The snapshotter looks for 1.9 s, give or take 0.2 s, whether a killed daemon's mount is gone before
it starts a successor: `after its start` is what the successor takes until the longest read ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from perf.cold_start import make_root
from tests.snapshotter.host import Host, container, pack, push_image
from tests.system.control import ask
from tests.system.daemon import parse_command

BLOCK = "64k"
FILE_MIB = 32
TASKS = "containerd-state/io.containerd.runtime.v2.task/default"  # containers as runc has them
FIRST_BYTES = 4 << 20  # fio reads less than that before it reads its file
BEFORE_S = 0.5  # reads before what is measured
# After a daemon is there again the snapshotter asks it for its state and watches it from then on.
AFTER_S = 1.0
LIMIT_S = 60  # of a fio that is not told to end
JIFFIES = os.sysconf("SC_CLK_TCK")


def fio(file: Path, *options: str) -> list[str]:
    """The command line that writes or reads *file* in blocks with checksums."""
    argv = ["fio", "--name=stall", f"--filename={file}", f"--bs={BLOCK}", f"--size={FILE_MIB}m"]
    return [*argv, "--verify=crc32c", "--output-format=json", *options]


def make_image(work: Path) -> tuple[Path, Path]:
    """Bootstrap and blob of a root file system with the file that fio reads."""
    root = make_root(work / "tree")
    written = fio(root / "data" / "big", "--rw=write", "--do_verify=0")
    subprocess.run(written, check=True, cwd=work, stdout=subprocess.DEVNULL)
    return pack(root, work / "img")


def started_at(pid: int) -> float:
    """When process *pid* began, seconds of the monotonic clock, in steps of 10 ms."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return int(words[19]) / JIFFIES


class Reading:
    """fio at work on *file*; a context manager, with the outcome in `report` afterwards."""

    def __init__(self, file: Path, work: Path) -> None:
        options = (
            "--thread",
            "--rw=randread",
            "--direct=1",
            "--time_based",
            f"--runtime={LIMIT_S}",
        )
        self.process = subprocess.Popen(
            fio(file, *options, "--readonly"),
            cwd=work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self.report: dict[str, Any] = {}

    def __enter__(self) -> Reading:
        deadline = time.monotonic() + LIMIT_S
        while self.bytes_read() < FIRST_BYTES:
            assert time.monotonic() < deadline, "fio does not begin"
            time.sleep(0.01)
        time.sleep(BEFORE_S)
        return self

    def bytes_read(self) -> int:
        """How much fio has read, of anything."""
        return int(Path(f"/proc/{self.process.pid}/io").read_text().split()[1])

    def __exit__(self, *exc: object) -> None:
        self.process.send_signal(signal.SIGINT)  # fio reports and ends
        output = self.process.communicate(timeout=LIMIT_S)[0].decode()
        start = output.find("\n{\n") + 1
        try:
            (job,) = json.JSONDecoder().raw_decode(output[start:])[0]["jobs"]
        except (ValueError, KeyError):
            job = {"error": output, "read": {"total_ios": 0, "lat_ns": {"max": 0}}}
        self.report = {
            "reads": job["read"]["total_ios"],
            "failed": job["error"],
            "longest": job["read"]["lat_ns"]["max"] / 1e9,
        }


class Measured:
    """A host with one program, and what was found on it."""

    def __init__(self, host: Host, reference: str, work: Path) -> None:
        self.host = host
        self.work = work
        self.reads = 0
        self.failures: list[str] = []
        self.found: dict[str, list[float]] = {}
        self.generation = 0
        host.pull(reference)
        name = f"reading-{host.folder.name}"
        host.run_detached(reference, name, "sleep", "100000")
        host.await_daemons(1)
        self.file = host.folder / TASKS / container(name) / "rootfs" / "data" / "big"
        self.file.read_bytes()

    def note(self, what: str, seconds: float) -> None:
        """Add to the figures."""
        self.found.setdefault(what, []).append(round(1000 * seconds, 1))

    def round(self, label: str, change: Any) -> None:
        """One *change* of the daemon, from which it returns when that began, under fio."""
        (before,) = self.host.daemon_pids()
        with Reading(self.file, self.work) as reading:
            began = change(before)
            self.host.await_daemons(1)
            time.sleep(AFTER_S)
        report = reading.report
        (after,) = self.host.daemon_pids()
        self.reads += report["reads"]
        if report["failed"] or after == before:
            self.failures.append(f"{label}: {report['failed']}, processes {before} and {after}")
            return
        self.note(f"{label}, longest read", report["longest"])
        if label == "kill":
            self.note("kill, after its start", began + report["longest"] - started_at(after))
        else:
            self.note("upgrade, all of it", time.monotonic() - AFTER_S - began)

    def kill(self, pid: int) -> float:
        """Kill the daemon; when."""
        began = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return began

    def upgrade(self, _pid: int) -> float:
        """Have the snapshotter put a copy of the program in its place; when that began."""
        self.generation += 1
        newer = self.host.folder / f"nydusd-{self.generation}"
        # The program itself, not what an upgrade before has put there as a link.
        shutil.copy(Path(self.host.settings["nydusd"]).resolve(), newer)
        began = time.monotonic()
        body = {"nydusd_path": str(newer), "version": str(self.generation), "policy": "all"}
        reply = ask(self.host.folder / "system.sock", "PUT", "/api/v1/daemons/upgrade", body)
        if reply.status != 200:
            self.failures.append(f"upgrade: {reply.status} {reply.body!r}")
        return began


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--upgrades", type=int, default=5)
    parser.add_argument(
        "--nydusd", action="append", help="a program and more options; this tree's without any"
    )
    parser.add_argument("--mode", default="dedicated", choices=("dedicated", "shared"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hs-") as name, contextlib.ExitStack() as hosts:
        work = Path(name)
        image = make_image(work)
        known: dict[str, Measured] = {}
        for number, text in enumerate(["", *(arguments.nydusd or [])]):
            folder = work / f"h{number}"
            folder.mkdir()
            command = parse_command(text).argv if text else None
            made = Host(folder, mode=arguments.mode, policy="failover", command=command)
            host = hosts.enter_context(made)
            reference = push_image(host.registry, "stalls/app", *image)
            known[text or "this tree"] = Measured(host, reference, work)
        for _ in range(arguments.kills):
            for each in known.values():
                each.round("kill", each.kill)
        for _ in range(arguments.upgrades):
            for each in known.values():
                each.round("upgrade", each.upgrade)
        results = {
            label: {
                "reads": each.reads,
                "failures": each.failures,
                "median": {what: statistics.median(found) for what, found in each.found.items()},
                "all": each.found,
            }
            for label, each in known.items()
        }
    print(json.dumps(results, indent=2))
    return 1 if any(each["failures"] for each in results.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
