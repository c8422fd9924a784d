"""Run a nydusd of any make on a mountpoint: start, wait for the mount, stop, look at its process.

Used by the system tests and by `perf/`. It knows the command line that all nydusd binaries share
and nothing of what is inside one.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.disclosure import search

START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
POLL_S = 0.0005


@dataclass(frozen=True, slots=True)
class Command:
    """A command line and what it adds to the environment."""

    argv: list[str]
    env: dict[str, str] = field(default_factory=dict)


def parse_command(text: str) -> Command:
    """*text* split as a shell would, with assignments in front of it taken as environment."""
    words = shlex.split(text)
    env = {}
    while words and "=" in words[0] and "/" not in words[0].partition("=")[0]:
        name, _, value = words.pop(0).partition("=")
        env[name] = value
    if not words:
        raise ValueError(f"no command in {text!r}")
    return Command(words, env)


def v1_config(
    blobs: Path,
    cache: Path | None,
    *,
    compressed: bool = False,
    amplify: int = 1 << 20,
    validate: bool = False,
    backend: dict[str, Any] | None = None,
    key: str = "",
) -> dict[str, Any]:
    """A v1 configuration for blobs in a folder, or *backend*; *cache* None takes the dummycache.

    *key*: encrypts the files of the cache.
    """
    kept: dict[str, Any] = {"type": "dummycache"}
    if cache is not None:
        kept = {
            "type": "blobcache",
            "compressed": compressed,
            "validate": validate,
            "config": {
                "work_dir": str(cache),
                "enable_encryption": bool(key),
                "encryption_key": key,
            },
        }
    local = {"type": "localfs", "config": {"dir": str(blobs), "readahead": False}}
    return {
        "device": {"backend": backend or local, "cache": kept},
        "mode": "direct",
        "digest_validate": False,
        "iostats_files": False,
        "enable_xattr": True,
        "amplify_io": amplify,
        "fs_prefetch": {"enable": False},
    }


def mount_id(mountpoint: Path) -> str | None:
    """Device number of what is mounted at *mountpoint* as `major:minor`, None for nothing."""
    found = None
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields = line.split()
        if fields[4] == str(mountpoint):
            found = fields[2]  # the last line is the top one
    return found


class Daemon:
    """One nydusd process and its mount; a context manager that leaves neither behind.

    *command* is the program with its first arguments, `fuse` and the options are added. The process
    is up when *probe* below the mountpoint answers a stat; `start_seconds` is how long that took.
    """

    def __init__(
        self,
        command: list[str],
        mountpoint: Path,
        *,
        bootstrap: Path | None = None,
        config: Path | None = None,
        options: tuple[str, ...] = (),
        env: dict[str, str] | None = None,
        probe: str = "",
    ) -> None:
        self.mountpoint = mountpoint.resolve()
        self.argv = [*command, "fuse", "--rlimit-nofile", "0", "-M", str(self.mountpoint)]
        for flag, value in (("-B", bootstrap), ("-C", config)):
            if value is not None:
                self.argv += [flag, str(value)]
        if "-l" not in options:
            self.argv += ["-l", "error"]
        self.argv += options
        self.env = {**os.environ, **(env or {})}
        self.probe = self.mountpoint / probe
        self.start_seconds = 0.0
        self.process: subprocess.Popen[bytes] | None = None
        self.output = b""  # what it wrote, complete once it has ended

    def __enter__(self) -> Daemon:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        """The process id, which stays known after the end."""
        assert self.process is not None
        return self.process.pid

    def launch(self) -> None:
        """Start the process and return at once."""
        self.log = open(os.memfd_create("nydusd-log"), "w+b")  # noqa: PTH123, SIM115
        self.process = subprocess.Popen(
            self.argv, env=self.env, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log
        )

    def start(self) -> None:
        """Start the process and wait until the mount answers; `RuntimeError` if it ends instead."""
        began = time.perf_counter()
        self.launch()
        while not self.is_up():
            assert self.process is not None
            if self.process.poll() is not None:
                self.collect()
                self.unmount()
                raise RuntimeError(f"{self.argv} ended with {self.process.returncode}: {self.text}")
            if time.perf_counter() - began > START_TIMEOUT_S:
                self.stop()
                raise RuntimeError(f"{self.argv} not up in {START_TIMEOUT_S} s: {self.text}")
            time.sleep(POLL_S)
        self.start_seconds = time.perf_counter() - began

    def is_up(self) -> bool:
        """Whether the probe is answered by something mounted here."""
        try:
            device = self.probe.stat().st_dev
        except OSError:
            return False
        return device != self.mountpoint.parent.stat().st_dev

    def wait(self, timeout: float = STOP_TIMEOUT_S) -> int:
        """Exit status, negative for a signal; `TimeoutExpired` after *timeout* seconds."""
        assert self.process is not None
        status = self.process.wait(timeout)
        if not self.log.closed:
            self.collect()
        return status

    def collect(self) -> None:
        """Take what the process has written so far."""
        self.log.seek(0)
        self.output = self.log.read()
        search.look(f"daemon {self.argv}", self.output)

    @property
    def text(self) -> str:
        """Standard output and error together."""
        return self.output.decode(errors="replace")

    def unmount(self) -> None:
        """Take away every mount that is left at the mountpoint."""
        while mount_id(self.mountpoint) is not None:
            subprocess.run(["umount", "-l", str(self.mountpoint)], check=True)

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """End the process with signal *number*, or kill it in the end; leave no mount behind."""
        if self.process is None or self.log.closed:
            return self.process and self.process.returncode
        if self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.collect()
        self.log.close()
        self.unmount()
        return self.process.returncode

    def cpu_seconds(self) -> float:
        """CPU time of the process, all threads, also ended ones; resolution is the scheduler's."""
        # The clock of another process: its id inverted, three bits for the kind (2 = scheduled).
        return time.clock_gettime((~self.pid << 3) | 2)

    def status(self) -> dict[str, int]:
        """The numbers of `/proc/PID/status`: KiB for memory, counts otherwise."""
        found = {}
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            first = value.split()[:1]
            if first and first[0].isdigit():
                found[name] = int(first[0])
        return found

    def disk_read_bytes(self) -> int:
        """What the process has read from disks, page cache aside."""
        for line in Path(f"/proc/{self.pid}/io").read_text().splitlines():
            if line.startswith("read_bytes: "):
                return int(line.split()[1])
        return 0

    def open_files(self) -> int:
        """How many descriptors the process has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))
