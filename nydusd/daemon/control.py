"""The control thread: what changes the daemon, one thing after another, while nobody waits for it.

Mounts and umounts, start, upgrade and exit are done here; the main thread hands them over and is
told when they are done. Between two of them the thread closes what unmounted file systems leave
behind once their last request has ended.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from nydusd.base.record import NamedTuple

logger = logging.getLogger("nydusd")

TIDY_SECONDS = 0.5  # between two looks at what still has requests inside


class Job(NamedTuple):
    """Something to do, and who is told how it went, in the control thread."""

    work: Callable[[], Any]
    done: Callable[[Any, BaseException | None], None]


class ControlThread:
    """Runs jobs in order; *tidy* is called between them and says whether it has to be again."""

    def __init__(self, tidy: Callable[[], bool], name: str = "control") -> None:
        self._tidy = tidy
        self._jobs: deque[Job] = deque()  # guarded by self._changed
        self._changed = threading.Condition()
        self._stopping = False
        # A daemon thread: a job that hangs in a backend does not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to take jobs."""
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Have *job* done after those that wait."""
        with self._changed:
            self._jobs.append(job)
            self._changed.notify()

    def stop(self, timeout: float) -> bool:
        """End after the job that runs, at most *timeout* seconds; whether it has ended.

        Jobs that wait are dropped, and nobody is told.
        """
        with self._changed:
            self._stopping = True
            self._jobs.clear()
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _next(self, wait_seconds: float | None) -> Job | None:
        with self._changed:
            if not self._jobs and not self._stopping:
                self._changed.wait(wait_seconds)
            return self._jobs.popleft() if self._jobs else None

    def _run(self) -> None:
        again = False
        while not self._stopping:
            job = self._next(TIDY_SECONDS if again else None)
            if job is not None:
                self._do(job)
            again = self._tidied()

    def _do(self, job: Job) -> None:
        try:
            result = job.work()
        except Exception as exc:
            job.done(None, exc)
        else:
            job.done(result, None)

    def _tidied(self) -> bool:
        try:
            return self._tidy()
        except Exception:
            logger.exception("closing an unmounted file system")
            return False
