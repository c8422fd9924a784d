"""One try of a request over the sources that there are: fail-over and hedging.

`Endpoints` says which sources and when to ask twice, `Transfer` carries; here the two come together
within one read. Any thread; each call belongs to the thread that made it.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError, FailureKind
from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from nydusd.backend.endpoints import Endpoints, Route
    from nydusd.backend.request import Request, Response
    from nydusd.backend.transfer import Call, Transfer

    Make = Callable[[Route, Buffer | None], Request]

NOT_A_SOURCE_S_FAULT = (FailureKind.CANCELLED, FailureKind.CONFIG)


class Answer(NamedTuple):
    """What came, and on which route."""

    route: Route
    response: Response


class _Leg:
    """One request under way on one route."""

    __slots__ = ("call", "route", "spare")

    def __init__(self, route: Route, call: Call, spare: bytearray | None) -> None:
        self.route = route
        self.call = call
        self.spare = spare  # where the body goes when it is not the reader's own buffer


class Attempt:
    """Asks the sources of *endpoints* by turns; *make* gives the request for a route and a buffer.

    *buffer* None is for requests whose body is kept in memory; they are not hedged.
    """

    def __init__(
        self,
        transfer: Transfer,
        endpoints: Endpoints,
        make: Make,
        buffer: Buffer | None,
        left_out: Callable[[Route, str], None],
    ) -> None:
        self._transfer = transfer
        self._endpoints = endpoints
        self._make = make
        self._buffer = buffer
        self._size = 0 if buffer is None else memoryview(buffer).nbytes
        self._left_out = left_out  # told of a source that is passed over from now on, and why
        self._changed = threading.Event()
        self._failure: BackendError | None = None
        self._refusal: Answer | None = None

    def run(self, routes: list[Route], *, hedged: bool = True) -> Answer:
        """The first answer that ends the read, of any status; *hedged*: slow sources are helped.

        When there is none: what the last source answered, or `BackendError` of the last failure.
        """
        left = list(routes)
        while left:
            answer = self._ask(left, hedged=hedged)
            if answer is not None:
                return answer
        if self._refusal is not None:
            return self._refusal
        assert self._failure is not None
        raise self._failure

    def _ask(self, left: list[Route], *, hedged: bool) -> Answer | None:
        """The answer of the first of *left*, or of the second if that is faster; both are taken."""
        first = self._begin(left.pop(0), hedge=False)
        legs = [first]
        after = None
        if hedged and self._buffer is not None:
            after = self._endpoints.hedge_after([first.route, *left[:1]], self._size)
        if after is None:
            first.call.wait(self._limit(first))
            return self._settle(first, legs)
        if not first.call.wait(after) and self._endpoints.may_hedge():
            legs.append(self._begin(left.pop(0), hedge=True))
        return self._first_good(legs)

    def _first_good(self, legs: list[_Leg]) -> Answer | None:
        running = list(legs)
        while running:
            self._changed.clear()
            done = [leg for leg in running if leg.call.done]
            if not done:
                if len(running) == 1:
                    running[0].call.wait(self._limit(running[0]))
                    done = running[:1]
                elif not self._changed.wait(self._limit(running[0])):
                    done = running[:1]  # `result` of one that does not end gives it up
            for leg in done:
                running.remove(leg)
                answer = self._settle(leg, legs)
                if answer is not None:
                    return answer
        return None

    def _settle(self, leg: _Leg, legs: list[_Leg]) -> Answer | None:
        """What *leg* ended with, if that ends the read; all others are cancelled then."""
        route = leg.route
        try:
            response = leg.call.result()
        except BackendError as exc:
            self._failure = exc
            if leg.spare is not None:
                exc.received = 0  # of bytes that nobody has kept
            if exc.kind in NOT_A_SOURCE_S_FAULT:
                self._cancel(legs)
                raise
            self._failed(route, str(exc))
            return None
        if not self._endpoints.is_answer(route, response.status):
            self._refusal = Answer(route, response)
            self._failure = None
            self._failed(route, f"status {response.status}")
            return None
        if len(legs) > 1 and leg is not legs[0] and not legs[0].call.done:
            self._endpoints.lost(legs[0].route)
        self._cancel([other for other in legs if other is not leg])
        if 200 <= response.status < 300:
            self._endpoints.succeeded(route, self._size, response.seconds)
        if leg.spare is not None and self._buffer is not None:
            # Nobody else writes into the reader's buffer any more: the other request is cancelled.
            count = response.received
            memoryview(self._buffer).cast("B")[:count] = memoryview(leg.spare)[:count]
        return Answer(route, response)

    def _begin(self, route: Route, *, hedge: bool) -> _Leg:
        spare = bytearray(self._size) if hedge else None
        request = self._make(route, spare if hedge else self._buffer)
        call = self._transfer.submit(request, lambda _call: self._changed.set())
        return _Leg(route, call, spare)

    def _failed(self, route: Route, why: str) -> None:
        if self._endpoints.failed(route):
            self._left_out(route, why)

    @staticmethod
    def _cancel(legs: list[_Leg]) -> None:
        for leg in legs:
            leg.call.cancel()

    @staticmethod
    def _limit(leg: _Leg) -> float | None:
        """How long to wait for *leg*, which libcurl should have ended by then."""
        timeout = leg.call.request.timeout
        if not timeout:
            return None
        return max(0.0, leg.call.started + timeout + 1.0 - time.monotonic())
