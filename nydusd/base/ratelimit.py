"""A token bucket: how much may pass in a time, with room for a burst.

Used by prefetch (bytes) and by backends (requests). Any thread.
"""

import threading
import time

STEP_SECONDS = 0.1  # tokens come in steps, as the reference's bucket has it


class TokenBucket:
    """*rate* tokens a second, up to *burst* of them saved; it is full at the start."""

    def __init__(self, rate: int, burst: int) -> None:
        self._rate = rate
        self._burst = burst
        self._tokens = float(burst)
        self._filled = time.monotonic()
        self._lock = threading.Lock()

    def take(self, amount: int, stop: threading.Event) -> bool:
        """Take *amount* tokens, waiting until they are there; false when *stop* was set instead.

        More than the bucket holds may be taken: the debt is paid before the next one passes.
        """
        while not stop.is_set():
            with self._lock:
                self._fill()
                if self._tokens > 0:
                    self._tokens -= amount
                    return True
            stop.wait(STEP_SECONDS)
        return False

    def charge(self, amount: int) -> None:
        """Take *amount* tokens at once, as a debt where they are not there; waits for nothing."""
        with self._lock:
            self._fill()
            self._tokens -= amount

    def _fill(self) -> None:
        now = time.monotonic()
        steps = int((now - self._filled) / STEP_SECONDS)
        if steps > 0:
            self._filled += steps * STEP_SECONDS
            self._tokens = min(self._burst, self._tokens + steps * STEP_SECONDS * self._rate)
