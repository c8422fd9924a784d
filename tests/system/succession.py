"""Daemons that follow each other on one mount, as the snapshotter has them follow: kills, upgrades.

Knows the command line, the API and the supervisor's socket, and nothing of what is inside a daemon:
with another command the same goes for another nydusd, and one may follow the other.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.servers.supervisor import Supervisor
from tests.system.control import Reply, ask
from tests.system.daemon import Command, mount_id

STATE_S = 60
LOOK_S = 0.005
DAEMON = "/api/v1/daemon"


class Succession:
    """One mount in *folder* and whoever serves it; a context manager that leaves nothing behind."""

    def __init__(self, command: Command, folder: Path, options: tuple[str, ...] = ()) -> None:
        self.command = command
        self.folder = folder
        self.options = options
        self.mountpoint = folder / "mnt"
        self.mountpoint.mkdir()
        self.supervisor = Supervisor(folder / "sup.sock")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.generation = 0
        self.log = (folder / "nydusd.log").open("ab")

    def __enter__(self) -> Succession:
        self.launch()
        self.await_state("RUNNING")
        self.send()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
                try:
                    process.wait(STATE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        self.supervisor.close()
        while mount_id(self.mountpoint) is not None:
            subprocess.run(["umount", "-l", str(self.mountpoint)], check=True)
        self.log.close()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The daemon that serves, or is about to."""
        return self.processes[-1]

    @property
    def socket(self) -> Path:
        """Its control socket; an upgrade has a new one."""
        return self.folder / f"api{self.generation or ''}.sock"

    def log_text(self) -> str:
        """What all of them have logged."""
        return (self.folder / "nydusd.log").read_text(errors="replace")

    def launch(self, *more: str, command: Command | None = None) -> None:
        """Start a daemon, and return at once."""
        command = command or self.command
        argv = [*command.argv, "fuse", *more, "--rlimit-nofile", "20000"]
        argv += ["--thread-num", "4", "--id", "daemon-1", "--supervisor", str(self.supervisor.path)]
        argv += [*self.options, "--mountpoint", str(self.mountpoint)]
        argv += ["--apisock", str(self.socket), "--failover-policy", "resend"]
        self.processes.append(
            subprocess.Popen(
                argv,
                env={**os_environ(), **command.env},
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=self.log,
                stderr=self.log,
            )
        )

    def ask(self, method: str, target: str, **query: str) -> Reply:
        """One request to the present daemon."""
        return ask(self.socket, method, target, **query)

    def order(self, target: str, socket: Path | None = None) -> None:
        """A request without a body that must go well."""
        reply = ask(socket or self.socket, "PUT", DAEMON + target)
        assert reply.status == 204, f"{target}: {reply.status} {reply.body!r}"

    def state(self) -> str | None:
        """What the present daemon says of itself; None while it says nothing."""
        try:
            return str(json.loads(self.ask("GET", DAEMON).body)["state"])
        except (OSError, ValueError):
            return None

    def await_state(self, wanted: str) -> None:
        """Wait until the present daemon says that it is in state *wanted*."""
        deadline = time.monotonic() + STATE_S
        while self.state() != wanted:
            assert self.process.poll() is None, f"ended: {self.log_text()}"
            assert time.monotonic() < deadline, f"not {wanted}: {self.log_text()}"
            time.sleep(LOOK_S)

    def send(self) -> None:
        """Have the present daemon hand over state and session."""
        done = self.supervisor.receive()
        self.order("/fuse/sendfd")
        done.result(STATE_S)

    def take_over(self) -> None:
        """Have the present daemon, in INIT, take what was handed over last."""
        self.await_state("INIT")
        done = self.supervisor.give()
        self.order("/fuse/takeover")
        done.result(STATE_S)
        self.await_state("READY")

    def serve(self) -> None:
        """Have the present daemon start, and hand over at once as the snapshotter does."""
        self.order("/start")
        self.await_state("RUNNING")
        self.send()

    def await_end(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until *process* has ended, without the pauses of `Popen.wait`."""
        fd = os.pidfd_open(process.pid)
        try:
            select.select([fd], [], [], STATE_S)
        finally:
            os.close(fd)

    def fail_over(self, command: Command | None = None) -> None:
        """Kill the daemon; the same command line again takes its place."""
        self.process.kill()
        self.process.wait()
        self.launch(command=command)
        self.take_over()
        self.serve()

    def upgrade(self, command: Command | None = None) -> None:
        """Start a second daemon beside the one that serves, and have it take its place."""
        self.send()
        old, old_socket = self.process, self.socket
        self.generation += 1
        self.launch("--upgrade", command=command)
        self.take_over()
        self.order("/exit", old_socket)
        self.await_end(old)
        assert old.wait(STATE_S) == 0, self.log_text()
        self.serve()


def os_environ() -> dict[str, str]:
    """The environment, with this tree to import from, whatever the working directory."""
    tree = str(Path(__file__).resolve().parent.parent.parent)
    paths = [tree, os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}


class Readers:
    """Processes that read and compare all files below a folder, again and again, until stopped."""

    def __init__(self, source: Path, mounted: Path, count: int = 2) -> None:
        program = [sys.executable, "-m", "tests.system.compare_forever", str(source), str(mounted)]
        self.processes = [
            subprocess.Popen(
                [*program, str(seed)],
                env=os_environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(count)
        ]
        for process in self.processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "reading\n"

    def stop(self, at_least: int = 0) -> dict[str, float]:
        """Sums of what they report: files, failures; `stall` is the longest, in seconds.

        Each of them reads *at_least* so many files before it ends.
        """
        reports = []
        for process in self.processes:
            output, _ = process.communicate(f"{at_least}\n", timeout=60)
            reports.append(json.loads(output.splitlines()[-1]))
        total = {key: sum(report[key] for report in reports) for key in ("files", "failures")}
        return {**total, "stall": max(report["stall"] for report in reports)}
