"""The last errors of the backends, as text: a ring of bounded length and size.

Fed by fetching threads, read by the API. Bounds and fields are the reference's (spec: http-api,
events).
"""

import threading
import time
from collections import deque
from typing import Any

from nydusd.base.log import one_line

ERRORS_MAX = 500
BYTES_MAX = 51200


class Events:
    """Empty at first; the oldest error goes when there is no room for the next."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards what follows
        self._errors: deque[str] = deque()
        self._bytes = 0

    def record(self, text: str) -> None:
        """Keep *text* with the time of now."""
        stamp = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
        line = f"{stamp} - {one_line(text)}"
        line = line.encode("utf-8", "replace")[:BYTES_MAX].decode("utf-8", "ignore")
        with self._lock:
            self._errors.append(line)
            self._bytes += len(line.encode())
            while len(self._errors) > ERRORS_MAX or self._bytes > BYTES_MAX:
                self._bytes -= len(self._errors.popleft().encode())

    def snapshot(self) -> dict[str, Any]:
        """All that is kept, the oldest first."""
        with self._lock:
            return {
                "max_errors": ERRORS_MAX,
                "total_errors": len(self._errors),
                "max_size": BYTES_MAX,
                "total_size": self._bytes,
                "errors": list(self._errors),
            }
