"""One connection of the control socket: requests in order, one answer at a time, for ever.

Runs in the event loop of the main thread and waits for nobody: what takes time is done elsewhere
and brings its answer later; meanwhile the connection is not read beyond a bound. A silent
connection stays open without limit: clients take its end for the daemon's death.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, cast

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

# An answer at once, or one that comes.
Answer = Response | Awaitable[Response]


class ConnectionLimit:
    """Counts open connections of one server."""

    def __init__(self, most: int = CONNECTIONS_MAX) -> None:
        self.open = 0
        self.most = most


class Connection(asyncio.Protocol):
    """One client; *answer* turns a request into its answer."""

    def __init__(self, answer: Callable[[Request], Answer], limit: ConnectionLimit) -> None:
        self._answer = answer
        self._limit = limit
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._waiting: asyncio.Future[Response] | None = None
        self._is_reading = True
        self._writable = True
        self._ended = False  # the client has sent all it will

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = cast("asyncio.Transport", transport)
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
        return self._waiting is not None

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
            if self._waiting is not None or not self._writable:
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
        self._waiting = asyncio.ensure_future(answer)
        self._waiting.add_done_callback(lambda done: self._finish(done, request))

    def _finish(self, done: asyncio.Future[Response], request: Request) -> None:
        self._waiting = None
        if not done.cancelled():
            self._send(done.result(), request)
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
