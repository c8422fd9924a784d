"""Threads that decode and keep what prefetch has got, beside the ones that ask for it.

A request takes a round trip in which its thread has nothing to do, and decoding takes as many
threads as there are processors. What was got waits in a short line. When the line is full, who got
it decodes by itself: then the processors are what all are waiting for, and memory stays bounded.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from nydusd.codec.compression import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.cache.fill import Filling

WAITING_EACH = 2  # for each thread, in the line


class Keepers:
    """At most *most* threads that call *keep*, and *on_end* when all is kept; `start` begins."""

    def __init__(
        self, most: int, keep: Callable[[Filling], None], on_end: Callable[[], None]
    ) -> None:
        count = min(most, len(os.sched_getaffinity(0)))
        self.threads = [
            threading.Thread(target=self._run, name=f"keep-{number}", daemon=True)
            for number in range(count)
        ]
        self._keep = keep
        self._on_end = on_end
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._line: deque[Filling] = deque()
        self._finishing = False
        self._running = count

    def start(self) -> None:
        """Begin; returns at once."""
        for thread in self.threads:
            thread.start()

    def offer(self, filling: Filling) -> bool:
        """Take *filling* over; false when the line is full: the caller keeps it then."""
        with self._changed:
            if len(self._line) >= WAITING_EACH * len(self.threads):
                return False
            self._line.append(filling)
            self._changed.notify()
            return True

    def finish(self) -> None:
        """Nothing is offered any more: end when the line is empty."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()

    def _run(self) -> None:
        warm_up()
        while (filling := self._next()) is not None:
            self._keep(filling)
        with self._changed:
            self._running -= 1
            last = self._running == 0
        if last:
            self._on_end()

    def _next(self) -> Filling | None:
        with self._changed:
            while not self._line and not self._finishing:
                self._changed.wait()
            return self._line.popleft() if self._line else None
