"""One way to time a piece of code: the best of some rounds, per item."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from dataclasses import dataclass

ROUND_S = 0.2
ROUNDS = 5


@dataclass(frozen=True, slots=True)
class Bench:
    """A call, and how many items (*unit*) one call does."""

    name: str
    call: Callable[[], object]
    items: int
    unit: str

    def ns_per_item(self) -> float:
        """Nanoseconds an item in the best of `ROUNDS` rounds of about `ROUND_S`."""
        timer = timeit.Timer(self.call)
        once = max(timer.timeit(1), 1e-9)
        number = max(1, int(ROUND_S / once))
        return min(timer.repeat(ROUNDS, number)) / number / self.items * 1e9
