"""Threads that decode and keep what prefetch has got, beside the ones that ask for it.

A request takes a round trip in which its thread has nothing to do, and decoding takes as many
threads as there are processors. What was got waits in a short line. When the line is full, who got
it decodes by itself: then the processors are what all are waiting for, and memory stays bounded.
"""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from nydusd.codec.compression import warm_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.cache.fill import Filling

logger = logging.getLogger("nydusd")

WAITING_EACH = 3  # for each thread, in the line


class Keepers:
    """At most *most* threads that call *keep*, and *on_end* when all is kept; `start` begins.

    *keep*, which raises nothing, is called for all that was taken over, come what may: readers wait
    for it. *on_end* is called once, after `finish`, even where not a single thread could begin.
    """

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
        self._running = count  # that began, or still will

    def start(self) -> None:
        """Begin, with as many threads as the system gives; returns at once."""
        for number, thread in enumerate(self.threads):
            try:
                thread.start()
            except (RuntimeError, MemoryError) as exc:
                logger.warning("only %d threads decode for prefetch: %s", number, exc)
                self._leave(len(self.threads) - number)
                return

    def offer(self, filling: Filling) -> bool:
        """Take *filling* over; false when the line is full: the caller keeps it then."""
        with self._changed:
            if len(self._line) >= WAITING_EACH * self._running:
                return False
            self._line.append(filling)
            self._changed.notify()
            return True

    def finish(self) -> None:
        """Nothing is offered any more: end when the line is empty."""
        with self._changed:
            self._finishing = True
            self._changed.notify_all()
            over = self._running == 0
        if over:
            self._on_end()

    def _run(self) -> None:
        try:
            warm_up()
        except Exception as exc:
            # Decoding meets it as well, and then lets go of what this thread has taken over.
            logger.warning("a thread of prefetch is not prepared: %s", exc)
        while (filling := self._next()) is not None:
            self._keep(filling)
        self._leave(1)

    def _leave(self, count: int) -> None:
        """*count* threads take no more; without any, what is in the line is kept here."""
        with self._changed:
            self._running -= count
            over = self._finishing and self._running == 0
            left = list(self._line) if self._running == 0 else []
        for filling in left:
            self._keep(filling)
        if over:
            self._on_end()

    def _next(self) -> Filling | None:
        with self._changed:
            while not self._line and not self._finishing:
                self._changed.wait()
            return self._line.popleft() if self._line else None
