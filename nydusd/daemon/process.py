"""What belongs to the process as a whole: its limit of open files and the signals that end it."""

import contextlib
import logging
import os
import resource
import select
import signal
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from nydusd.base.errors import ConfigError

logger = logging.getLogger("nydusd")

RESERVED_FILES = 16384  # of the system's file-max that are left to other processes
MOST_FILES = 1_000_000
# Of a core, in bytes: less than any core has, and by this very value the kernel knows that no core
# shall go to a program either (core(5); 0 would not keep it from that).
NO_CORE = 1
ALLOW_CORE = "NYDUSD_ALLOW_CORE"
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def raise_open_files_limit(wanted: int) -> None:
    """Set the limit of open files to *wanted*, or as near as allowed; 0 leaves it as it is.

    Where the limit cannot be raised the daemon warns and goes on: it needs few descriptors of
    its own, and a host that grants no more would otherwise have no mount at all.
    """
    if wanted == 0:
        return
    try:
        file_max = int(Path("/proc/sys/fs/file-max").read_text())
    except OSError as exc:  # a container without /proc
        logger.warning("cannot raise rlimit-nofile (%s): going on with what is set", exc)
        return
    if file_max < 2 * RESERVED_FILES:
        raise ConfigError(
            "The fs.file-max sysctl is too low to allow a reasonable number of open files"
            f" ({file_max}, at least {2 * RESERVED_FILES} is needed)"
        )
    most = min(file_max - RESERVED_FILES, MOST_FILES)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= most:
        most = soft if soft != resource.RLIM_INFINITY else most
    limit = min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    except (OSError, ValueError) as exc:
        if hard != resource.RLIM_INFINITY and soft < hard:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(limit, hard), hard))
        kept = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        logger.warning("cannot raise rlimit-nofile to %d (%s): going on with %d", limit, exc, kept)
        return
    logger.info("Set rlimit-nofile to %d, maximum %d", limit, most)


def forbid_core_dumps(environment: Mapping[str, str]) -> None:
    """Let no core of this process be written: it would hold passwords, tokens and keys.

    Unless `NYDUSD_ALLOW_CORE` in *environment* is 1. The hard limit stays: `prlimit --core` allows
    one for a process that runs.
    """
    if environment.get(ALLOW_CORE) == "1":
        return
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if hard != 0:
        resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE, hard))


class EndRequest:
    """Somebody wants the process to end: a signal, or a part of the daemon.

    `wait` is called by the main thread, `ask` by any. Signals are taken from the moment of
    `install` on, so that one which comes during the start is not lost.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._lock = threading.Lock()
        # The writing end never blocks: a full pipe wakes as well as one more byte.
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)

    def install(self) -> None:
        """Take SIGTERM and SIGINT; call from the main thread."""
        # Python runs a handler between two steps of the main thread. A signal that comes just
        # before that thread sleeps, or that another thread receives, would not wake it: the byte
        # that the interpreter's C handler writes does.
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in END_SIGNALS:
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        # No lock here: the handler runs in the main thread, between any two of its steps.
        self.reason = self.reason or signal.Signals(number).name
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"!")

    def ask(self, reason: str) -> None:
        """End for *reason*; the first one asked for is kept."""
        with self._lock:
            self.reason = self.reason or reason
        self._wake()

    def fileno(self) -> int:
        """A descriptor that can be read when somebody asks, for an event loop in place of `wait`.

        Bytes may come that mean nothing: `reason` says whether the end has been asked for.
        """
        return self._wake_read

    def drain(self) -> None:
        """Take the bytes that made `fileno` readable; call only when it is."""
        os.read(self._wake_read, 64)

    def wait(self, seconds: float | None = None, alive: Callable[[], None] | None = None) -> str:
        """Sleep until somebody asks; the reason. *alive* is called every *seconds* meanwhile."""
        while not self.reason:
            if select.select([self._wake_read], [], [], seconds)[0]:
                self.drain()
            elif alive is not None:
                alive()
        return self.reason
