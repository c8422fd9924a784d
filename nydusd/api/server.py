"""One connection of the control socket: requests in order, one answer at a time, for ever.

Runs in a loop of the main thread and waits for nobody: what takes time is done elsewhere and brings
its answer later; meanwhile the connection is not read beyond a bound. A silent connection stays
open without limit: clients take its end for the daemon's death.

The loop is `api.early` at first and uvloop from then on (`api.service`). Nothing here imports
asyncio: it takes longer than all the rest of a start.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, Protocol

from nydusd.api.http import (
    BODY_BYTES,
    CONTINUE,
    MalformedRequest,
    Request,
    RequestParser,
    Response,
    encode,
    encode_transport_error,
    malformed_text,
)

logger = logging.getLogger("nydusd")

CONNECTIONS_MAX: Final = 1024
UNREAD_BYTES: Final = 2 * BODY_BYTES  # kept of a client that sends while it waits


class Pending:
    """An answer that comes. Used in the loop's thread alone."""

    def __init__(self) -> None:
        self._response: Response | None = None
        self._told: list[Callable[[Response], None]] = []

    def set(self, response: Response) -> None:
        """The answer is *response*; whoever waits is told."""
        self._response = response
        for tell in self._told:
            tell(response)
        self._told.clear()

    def then(self, tell: Callable[[Response], None]) -> None:
        """Have *tell* called with the answer, at once when it is there."""
        if self._response is None:
            self._told.append(tell)
        else:
            tell(self._response)


# An answer at once, or one that comes.
Answer = Response | Pending


class Transport(Protocol):
    """What a connection needs of the loop that it lives in: a part of `asyncio.Transport`."""

    def write(self, data: bytes) -> None:
        """Send *data* as soon as it can be."""

    def close(self) -> None:
        """End the connection after what is written has been sent."""

    def is_closing(self) -> bool:
        """Whether the end has been asked for, or has come."""

    def pause_reading(self) -> None:
        """Take no more from the client for now."""

    def resume_reading(self) -> None:
        """Take from the client again."""


class ConnectionLimit:
    """Counts open connections of one server."""

    def __init__(self, most: int = CONNECTIONS_MAX) -> None:
        self.open = 0
        self.most = most


class Connection:
    """One client; *answer* turns a request into its answer. An `asyncio.Protocol` in all but name.

    May be given another transport in the midst of it: what has come, and the answer that is due,
    stay with the connection.
    """

    def __init__(self, answer: Callable[[Request], Answer], limit: ConnectionLimit) -> None:
        self._answer = answer
        self._limit = limit
        self._parser = RequestParser()
        self._transport: Transport | None = None
        self._waits = False  # for an answer that takes time
        self._is_reading = True
        self._writable = True
        self._ended = False  # the client has sent all it will

    def connection_made(self, transport: Transport) -> None:
        """See `asyncio.Protocol`."""
        is_moved = self._transport is not None
        self._transport = transport
        if is_moved:
            self._is_reading = self._writable = True  # a new transport is
            self._go_on()
            return
        self._limit.open += 1
        if self._limit.open > self._limit.most:
            self._transport.write(encode_transport_error(503, "Too many open connections"))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. What is being done is done all the same."""
        self._limit.open -= 1
        self._transport = None

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._parser.feed(data)
        self._go_on()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: answers that are due are still sent."""
        self._ended = True
        return self._waits

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: no further request is begun."""
        self._writable = False

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._writable = True
        self._go_on()

    def _go_on(self) -> None:
        """Answer what has come, up to a request whose answer takes time."""
        while self._transport is not None and not self._transport.is_closing():
            if self._waits or not self._writable:
                break
            try:
                request = self._parser.next_request()
            except MalformedRequest as exc:
                self._refuse(exc)
                return
            if request is None:
                if self._parser.wants_continue():
                    self._transport.write(CONTINUE)
                if self._ended:
                    self._transport.close()
                break
            self._begin(request)
        self._regulate()

    def _begin(self, request: Request) -> None:
        answer = self._answer(request)
        if isinstance(answer, Response):
            self._send(answer, request)
            return
        self._waits = True
        answer.then(lambda response: self._finish(response, request))

    def _finish(self, response: Response, request: Request) -> None:
        self._waits = False
        self._send(response, request)
        self._go_on()

    def _send(self, response: Response, request: Request) -> None:
        if self._transport is None:
            return
        self._transport.write(encode(response, keep_alive=request.keep_alive))
        if not request.keep_alive:
            self._transport.close()

    def _refuse(self, exc: MalformedRequest) -> None:
        assert self._transport is not None
        logger.debug("control socket: malformed request: %s", exc.text)
        self._transport.write(encode_transport_error(400, malformed_text(exc)))
        self._transport.close()

    def _regulate(self) -> None:
        """Read no more from a client that has sent enough ahead."""
        if self._transport is None or self._transport.is_closing():
            return
        wants = self._parser.pending_bytes < UNREAD_BYTES
        if wants != self._is_reading:
            self._is_reading = wants
            (self._transport.resume_reading if wants else self._transport.pause_reading)()
