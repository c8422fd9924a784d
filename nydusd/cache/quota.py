"""How many bytes may still be kept in a cache directory with a limit.

Who is about to write to a cache file takes from it first; where it does not suffice, the bytes are
used and not kept, as on a full disk. `cache.room` measures the directory, makes room, and tells how
much is left. Any thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

WAIT_SECONDS = 2.0  # for room to be made
EARLY_PERCENT = 5  # of the limit: room is made when less is left, so that seldom anybody waits


class Quota:
    """What is left of *limit* bytes; *make_room* asks somebody to call `measured`, and returns."""

    def __init__(self, limit: int, make_room: Callable[[], None]) -> None:
        self.limit = limit
        self._make_room = make_room
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._left = 0
        self._taken = 0  # by writes that have not ended
        self._written = 0  # since ever
        self._wanted = 0  # the most that one write lacks
        self._in_use = False  # no more can be made: nobody waits for it

    def take(self, size: int, *, wait: bool = False) -> bool:
        """Whether *size* bytes may be written now; `give` them back when that has ended.

        *wait*: for room to be made. Readers do not: their next chunks would come later for it.
        """
        with self._changed:
            if size > self._left and not self._await_room(size, WAIT_SECONDS if wait else 0.0):
                return False
            self._left -= size
            self._taken += size
            if self._left < self.limit * EARLY_PERCENT // 100 and not self._in_use:
                self._make_room()
            return True

    def _await_room(self, size: int, most: float) -> bool:
        """Whether *size* bytes are left within *most* seconds; sees to it that room is made."""
        deadline = time.monotonic() + most
        while size > self._left:
            if self._in_use or size > self.limit:
                return False
            self._wanted = max(self._wanted, size)
            self._make_room()
            seconds = deadline - time.monotonic()
            if seconds <= 0:
                return False
            self._changed.wait(seconds)
        return True

    def give(self, size: int, *, written: bool) -> None:
        """The write for which *size* bytes were taken has ended."""
        with self._changed:
            self._taken -= size
            if written:
                self._written += size
            else:
                self._left += size

    def begin(self) -> int:
        """To be called before the directory is measured, for `measured`."""
        with self._changed:
            return self._written

    def goal(self, percent: int) -> int:
        """Bytes to come down to: *percent* of the limit, or less where a write needs that."""
        with self._changed:
            return max(0, min(self.limit * percent // 100, self.limit - self._wanted))

    def measured(self, begun: int, used: int, *, in_use: bool = False) -> None:
        """The directory holds *used* bytes; *begun*: of `begin`; *in_use*: nothing of it may go.

        What was written meanwhile, or is about to be, may be counted twice, but never not at all.
        """
        with self._changed:
            self._left = self.limit - used - self._taken - (self._written - begun)
            self._in_use = in_use
            self._wanted = 0
            self._changed.notify_all()

    @property
    def short(self) -> bool:
        """Whether less is left than there should be: the directory is to be measured again."""
        with self._changed:
            return self._left < self.limit * EARLY_PERCENT // 100
