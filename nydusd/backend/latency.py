"""How long one source takes to answer, of late: the 95th percentile for small and large ranges."""

from __future__ import annotations

from collections import deque
from typing import Final

SAMPLES: Final = 128  # of each kind that are remembered
FEWEST: Final = 8  # below that nothing is said of a kind
LARGE_BYTES: Final = 256 << 10  # from here on a range takes time for its bytes, too
UNKNOWN_S: Final = 0.2  # taken while nothing is known: longer than any round trip on earth
LEAST_S: Final = 0.005  # a loaded machine has pauses of this length of its own


class Latency:
    """The latest answers of one source; its owner locks."""

    __slots__ = ("_large", "_small")

    def __init__(self) -> None:
        self._small: deque[float] = deque(maxlen=SAMPLES)
        self._large: deque[float] = deque(maxlen=SAMPLES)

    def add(self, size: int, seconds: float) -> None:
        """A range of *size* bytes was complete after *seconds*."""
        (self._large if size >= LARGE_BYTES else self._small).append(seconds)

    def p95(self, size: int) -> float:
        """Seconds within which 95 of 100 ranges such as one of *size* have been complete."""
        samples = self._large if size >= LARGE_BYTES else self._small
        if len(samples) < FEWEST:
            return UNKNOWN_S
        return max(LEAST_S, sorted(samples)[(len(samples) * 95) // 100])
