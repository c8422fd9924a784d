"""Health checks of mirrors and proxies, in the background.

One thread for all backends of the process: it sleeps until a check is due and hands it to the
transfer thread; what comes back goes into the backend's `Endpoints`. It exists only while some
backend has something to check.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from nydusd.backend.endpoints import PROXY
from nydusd.backend.request import Request, Tls
from nydusd.base.errors import FailureKind

if TYPE_CHECKING:
    from nydusd.backend.endpoints import Check, Endpoints, Route
    from nydusd.backend.transfer import Call, Transfer

logger = logging.getLogger("nydusd")

CHECK_SECONDS = 5.0  # for the answer to a check, after the connection is there
CLOSE_SECONDS = 2.0


class HealthChecks:
    """The checks of one backend; `start` and `close` are its own, the rest is for any thread."""

    def __init__(self, endpoints: Endpoints, transfer: Transfer, tls: Tls) -> None:
        self.endpoints = endpoints
        self._names = endpoints.names()
        self._transfer = transfer
        self._tls = tls
        self._closed = False

    def start(self) -> None:
        """Begin to check, at once where that is due."""
        _checker.add(self)

    def close(self) -> None:
        """Send no more checks; one that is under way changes nothing any more."""
        self._closed = True
        _checker.remove(self)

    def left_out(self, route: Route, why: str) -> None:
        """Log that *route* is passed over from now on, and see to it that it is checked."""
        logger.warning("%s %s is left out: %s", route.kind, self._names[route.number], why)
        _checker.wake()

    def send_due(self) -> float | None:
        """Send what is due now; seconds until there may be more."""
        for check in self.endpoints.due_checks():
            request = Request(
                check.url,
                timeout=check.timeout + CHECK_SECONDS,
                connect_timeout=check.timeout,
                tls=self._tls,
            )
            self._transfer.submit(request, lambda call, check=check: self._came(check, call))  # type: ignore[misc]
        return self.endpoints.seconds_to_check()

    def _came(self, check: Check, call: Call) -> None:
        """On the transfer thread: what became of *check*."""
        if self._closed or (call.error and call.error.kind is FailureKind.CANCELLED):
            return
        status = call.response.status if call.response else None
        if not self.endpoints.checked(check, status):
            return
        name = self._names[check.number]
        kind, alive = self.endpoints.state(check.number)
        why = f"status {status}" if status is not None else str(call.error)
        if alive:
            logger.info("%s %s is used again", kind, name)
        elif kind == PROXY:
            logger.warning("Detected proxy unhealthy when pinging proxy %s: %s", name, why)
        else:
            logger.warning("%s %s is left out: %s", kind, name, why)


class _Checker:
    """The thread, while somebody needs it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._checks: set[HealthChecks] = set()  # guarded by the lock
        self._thread: threading.Thread | None = None  # guarded by the lock
        self._changed = threading.Event()

    def add(self, checks: HealthChecks) -> None:
        """Look after *checks*, if it has anything to check at all."""
        if not checks.endpoints.has_checks:
            return
        with self._lock:
            self._checks.add(checks)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="health", daemon=True)
                self._thread.start()
        self._changed.set()

    def remove(self, checks: HealthChecks) -> None:
        """Forget *checks*; the thread ends with the last of them."""
        with self._lock:
            self._checks.discard(checks)
            thread = self._thread if not self._checks else None
        self._changed.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    def wake(self) -> None:
        """Look again what is due."""
        self._changed.set()

    def _run(self) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                if not self._checks:
                    self._thread = None
                    return
                all_checks = list(self._checks)
            waits = []
            for checks in all_checks:
                try:
                    waits.append(checks.send_due())
                except Exception:
                    logger.exception("health checks")
            times = [seconds for seconds in waits if seconds is not None]
            self._changed.wait(min(times) if times else None)


_checker = _Checker()
