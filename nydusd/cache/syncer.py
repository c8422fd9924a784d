"""The thread that has kept bytes on the disk before long, and looks after what others do to them.

Others may cut, punch or replace a data file while it is open. The kernel tells of each change of
one, our own writes as well, so a look follows changes at once and no look follows a look at once.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.base.inotify import Watches

T = TypeVar("T")
logger = logging.getLogger("nydusd")

SYNC_INTERVAL_S = 5.0  # chunks of the last seconds before a power cut are fetched again
REST_SECONDS = 1.0  # for a look that is under way
LOOK_INTERVAL_S = 0.02  # between two looks while a file changes all the time


class Kept(Protocol):
    """A data file and what is known of it; may be called after it was closed as well.

    By the thread alone, but for `sync`.
    """

    def watch(self, watches: Watches) -> int:
        """Have the file watched: the number of the watch, -1 when it is closed."""

    def look(self, *, changed: bool) -> bool:
        """Notice what others have done to the file; *changed*: the kernel says that it was changed.

        False when that was this process, which may hide what others did.
        """

    def sync(self) -> None:
        """Have on the disk what was kept so far, and record it."""


class Syncer:
    """The thread of this process; it is started with the first file and ends with the last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._files: dict[Kept, int] = {}  # number of its watch, -1: none; guarded by the lock
        self._thread: threading.Thread | None = None  # guarded by the lock
        self._watches: Watches | None = None  # guarded by the lock
        self._wake = -1  # eventfd of the thread; guarded by the lock

    def add(self, file: Kept) -> None:
        """Look after *file* from now on."""
        with self._lock:
            if self._thread is None:
                self._start()
            self._files[file] = self._watch(file)

    def remove(self, file: Kept) -> None:
        """Leave *file* alone; the thread ends with the last one."""
        with self._lock:
            number = self._files.pop(file, -1)
            if self._watches is not None and number >= 0:
                self._watches.remove(number)
            if not self._files and self._wake >= 0:
                os.eventfd_write(self._wake, 1)

    def rest(self) -> None:
        """Have on the disk what was kept so far, and look after no file any more.

        For a process whose end is waited for: with watches of the kernel open that takes 5 to 14 ms
        longer (`perf.stalls`, upgrade).
        """
        with self._lock:
            files, thread = list(self._files), self._thread
            self._files.clear()
            if self._wake >= 0:
                os.eventfd_write(self._wake, 1)
        for file in files:
            _try(file.sync)
        if thread is not None:
            thread.join(REST_SECONDS)

    def _start(self) -> None:
        from nydusd.base.inotify import Watches

        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            self._watches = Watches()
        except OSError as exc:
            logger.debug("changes of cache files are looked for every 5 s only: %s", exc)
        self._thread = threading.Thread(target=self._run, name="cache-sync", daemon=True)
        self._thread.start()

    def _watch(self, file: Kept) -> int:
        try:
            return -1 if self._watches is None else file.watch(self._watches)
        except OSError as exc:
            logger.debug("a cache file is looked at every 5 s only: %s", exc)
            return -1

    def _run(self) -> None:
        """Look when files change, sync every few seconds, until there is no file."""
        watches, wake = self._watches, self._wake
        poll = select.poll()
        poll.register(wake, select.POLLIN)
        if watches is not None:
            poll.register(watches.fd, select.POLLIN)
        due = time.monotonic() + SYNC_INTERVAL_S
        again: set[int] = set()
        while not self._ends():
            wait = LOOK_INTERVAL_S if again else max(due - time.monotonic(), 0)
            ready = dict(poll.poll(wait * 1000))
            if wake in ready:  # and yet there is another file by now
                os.eventfd_read(wake)
            if watches is not None and (again or watches.fd in ready):
                again = self._look(watches.changed() | again)
                time.sleep(LOOK_INTERVAL_S)
            if time.monotonic() >= due:
                self._look_and_sync()
                due = time.monotonic() + SYNC_INTERVAL_S
        if watches is not None:
            watches.close()
        os.close(wake)

    def _ends(self) -> bool:
        """Whether there is no file any more; the next one starts another thread then."""
        with self._lock:
            if self._files:
                return False
            self._thread, self._watches, self._wake = None, None, -1
            return True

    def _look(self, numbers: set[int]) -> set[int]:
        """Look at the files whose watches have *numbers*; those that must be looked at again.

        -1 is one of them when the kernel has lost some.
        """
        with self._lock:
            changed = [
                (file, number)
                for file, number in self._files.items()
                if number in numbers or -1 in numbers
            ]
        return {number for file, number in changed if not _try(partial(file.look, changed=True))}

    def _look_and_sync(self) -> None:
        with self._lock:
            files = list(self._files)
        for file in files:
            _try(partial(file.look, changed=False))
            _try(file.sync)


def _try(do: Callable[[], T]) -> T | None:
    try:
        return do()
    except Exception:
        logger.exception("a cache file could not be looked after")
        return None


SYNCER = Syncer()
