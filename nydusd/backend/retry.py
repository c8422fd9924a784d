"""When a failed request is sent again: how often, after which pause, and until when.

One `RetryPolicy` belongs to a backend; each read makes its `Attempts` from it. Any thread.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError, FailureKind
from nydusd.base.tracing import tracer

if TYPE_CHECKING:
    from nydusd.config.model import Connection

logger = logging.getLogger("nydusd")

DEFAULT_RETRIES = 3  # where the configuration says 0 (the reference retries as often)
BACKGROUND_RETRIES = 1
READ_SECONDS = 60.0  # no attempt starts later, and none ends later unless `timeout` is longer
FIRST_PAUSE_SECONDS = 0.1  # doubles with each retry; a random half is taken off
LONGEST_PAUSE_SECONDS = 2.0
RETRY_AFTER_MAX_SECONDS = 60.0
LOG_SECONDS = 1.0  # between two lines about retries of one backend

# A retry may find another server, another route or a better moment; the rest stays as it is.
RETRIED_KINDS = {
    FailureKind.UNREACHABLE,
    FailureKind.BROKEN,
    FailureKind.TIMEOUT,
    FailureKind.TLS,
    FailureKind.SHORT,
    FailureKind.LONG,
    FailureKind.RANGE,
    FailureKind.OTHER,
}
RETRIED_STATUS = {408, 425, 429}  # and all from 500


def may_retry(error: BackendError) -> bool:
    """Whether the same request may have another outcome."""
    if error.kind is FailureKind.STATUS:
        return error.status >= 500 or error.status in RETRIED_STATUS
    return error.kind in RETRIED_KINDS


def retry_after_seconds(text: str) -> float:
    """Seconds that a `Retry-After` header asks for, 0 for one that cannot be read (RFC 9110)."""
    text = text.strip()
    if text.isdecimal():
        seconds = float(text[:9])
    else:
        from email.utils import parsedate_to_datetime  # 5 ms of a start, for few servers

        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_SECONDS)


class RetryPolicy:
    """What *connection* says about retries, and the pause that a server has asked for."""

    def __init__(self, connection: Connection) -> None:
        self.timeout = float(connection.timeout)
        self.retries = connection.retry_limit or DEFAULT_RETRIES
        self._resume = 0.0  # monotonic seconds: a server wants no request before
        self._closing = threading.Event()
        self._logged = 0.0

    def attempts(self, *, background: bool = False) -> Attempts:
        """The attempts of one read that starts now."""
        return Attempts(self, BACKGROUND_RETRIES if background else self.retries)

    def close(self) -> None:
        """End every pause; what would have been tried again fails."""
        self._closing.set()

    @property
    def closed(self) -> bool:
        """Whether nothing is tried any more."""
        return self._closing.is_set()

    def leave_alone(self, seconds: float) -> None:
        """Send nothing for *seconds*: the server has asked for it."""
        self._resume = max(self._resume, time.monotonic() + seconds)

    def pause(self, until: float, deadline: float) -> bool:
        """Wait until *until* and as long as the server wants; False when *deadline* is before."""
        until = max(until, self._resume)
        if until > deadline:
            return False
        seconds = until - time.monotonic()
        if seconds > 0:
            self._closing.wait(seconds)
        return not self._closing.is_set()

    def tell(self, error: BackendError, left: int) -> None:
        """Log that *error* is followed by a retry, once in a while."""
        now = time.monotonic()
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            logger.info("%s; asked again, %d more to go", error, left)


class Attempts:
    """The attempts of one read."""

    def __init__(self, policy: RetryPolicy, retries: int) -> None:
        self._policy = policy
        self._left = retries
        self._made = 1
        self._deadline = time.monotonic() + max(READ_SECONDS, policy.timeout)

    def wait_to_start(self) -> None:
        """Wait while a server wants to be left alone; `BackendError` when that is too long."""
        if not self._policy.pause(0.0, self._deadline):
            if self._policy.closed:
                raise BackendError("the backend is closed", FailureKind.CANCELLED)
            raise BackendError("the server asked for a longer pause", FailureKind.STATUS)

    @property
    def seconds(self) -> float:
        """The time limit of the attempt that starts now, 0 for none."""
        if not self._policy.timeout:
            return 0.0
        return max(0.1, min(self._policy.timeout, self._deadline - time.monotonic()))

    def fail(self, error: BackendError) -> None:
        """Return when it is time for the next attempt; raise *error* when there is none."""
        if error.retry_after:
            self._policy.leave_alone(error.retry_after)
        if self._left <= 0 or not may_retry(error):
            raise self._last(error)
        pause = min(FIRST_PAUSE_SECONDS * 2.0 ** (self._made - 1), LONGEST_PAUSE_SECONDS)
        pause *= random.uniform(0.5, 1.0)
        self._left -= 1
        self._made += 1
        self._policy.tell(error, self._left)
        if (taker := tracer()) is not None:
            taker.note_retry(error.kind.value)
        if not self._policy.pause(time.monotonic() + pause, self._deadline):
            raise self._last(error)

    def _last(self, error: BackendError) -> BackendError:
        if self._made == 1:
            return error
        return BackendError(
            f"{error} (tried {self._made} times)",
            error.kind,
            status=error.status,
            retry_after=error.retry_after,
        )
