"""The control socket's first loop: serves it before asyncio and uvloop are there.

Importing those takes as long as all the rest of a start, and a successor is asked for its takeover
while readers wait. So the first requests are answered here, by the same connections and handlers;
once nobody asks any more the connections move to uvloop, which the daemon lives on.

A plain loop over `poll(2)` in the main thread; only `call_soon_threadsafe` is for others.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from nydusd.api.http import Response
    from nydusd.api.server import Connection

QUIET_SECONDS: Final = 0.5  # without a request: the next one finds uvloop there
LONGEST_SECONDS: Final = 2.0  # with clients that never rest
RECEIVE_BYTES: Final = 1 << 16
PASSED_OVER_MAX: Final = 16  # times as much as that, at the end

Listener = tuple[socket.socket, Callable[[], "Connection"]]


class EarlyTransport:
    """An accepted socket of *connection*; the part of `asyncio.Transport` that one uses."""

    def __init__(self, sock: socket.socket, connection: Connection) -> None:
        self.sock = sock
        self.connection = connection
        self.unsent = bytearray()
        self._is_full = False  # the client takes nothing at the moment
        self._is_reading = True
        self._is_closing = False
        self._ended = False  # the client has sent all it will

    def write(self, data: bytes) -> None:
        """Send *data* as soon as it can be."""
        self.unsent += data
        if not self._is_full:
            self.send()

    def send(self) -> None:
        """Send of what is left as much as the client takes."""
        try:
            while self.unsent:
                del self.unsent[: self.sock.send(self.unsent)]
        except BlockingIOError:
            self._is_full = True
            self.connection.pause_writing()
            return
        except OSError:
            self._lose()
        if self._is_full:
            self._is_full = False
            self.connection.resume_writing()

    def receive(self) -> None:
        """Give the connection what has come."""
        try:
            data = self.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._lose()
            return
        if data:
            self.connection.data_received(data)
            return
        self._ended = True
        if not self.connection.eof_received():
            self.close()

    def _lose(self) -> None:
        """Note that the client is gone."""
        self.unsent.clear()
        self._is_closing = True

    def close(self) -> None:
        """End the connection after what is written has been sent."""
        self._is_closing = True

    def is_closing(self) -> bool:
        """Whether the end has been asked for, or has come."""
        return self._is_closing

    def pause_reading(self) -> None:
        """Take no more from the client for now."""
        self._is_reading = False

    def resume_reading(self) -> None:
        """Take from the client again."""
        self._is_reading = True

    def hang_up(self) -> None:
        """Close the socket; what the client has sent ahead must not cost it the last answer."""
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_WR)
            for _ in range(PASSED_OVER_MAX):  # a close over unread bytes is a reset
                if not self.sock.recv(RECEIVE_BYTES):
                    break
        self.sock.close()

    def wanted_events(self) -> int:
        """What to poll for; 0 = nothing, and the socket is not to be polled."""
        wanted = select.POLLOUT if self.unsent else 0
        if self._is_reading and not self._is_closing and not self._ended:
            wanted |= select.POLLIN
        return wanted

    def is_over(self) -> bool:
        """Whether all that is left is to close the socket."""
        return self._is_closing and not self.unsent


class EarlyLoop:
    """Serves *listeners*, each with what makes a connection; wakes for *wake_fd* as well.

    *on_wake* is called when that can be read.
    """

    def __init__(
        self, listeners: list[Listener], wake_fd: int, on_wake: Callable[[], None]
    ) -> None:
        self._listeners = {sock.fileno(): (sock, make) for sock, make in listeners}
        self._wake_fd = wake_fd
        self._on_wake = on_wake
        self._transports: dict[int, EarlyTransport] = {}  # by descriptor
        self._calls: deque[tuple[Callable[[Response], None], Response]] = deque()
        self._called = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._last = time.monotonic()  # when something came

    def call_soon_threadsafe(
        self, callback: Callable[[Response], None], response: Response
    ) -> None:
        """Have *callback* called with *response* in the loop's thread; from any thread."""
        self._calls.append((callback, response))
        os.eventfd_write(self._called, 1)

    def is_quiet(self, since: float) -> bool:
        """Whether nobody has asked for a while, or has without a rest since *since*."""
        now = time.monotonic()
        return now - max(self._last, since) >= QUIET_SECONDS or now - since >= LONGEST_SECONDS

    def turn(self, seconds: float | None) -> None:
        """Do what there is to do; wait for it at most *seconds*."""
        poll = select.poll()
        for fd in (*self._listeners, self._wake_fd, self._called):
            poll.register(fd, select.POLLIN)
        for fd, transport in self._transports.items():
            if wanted := transport.wanted_events():
                poll.register(fd, wanted)
        for fd, events in poll.poll(None if seconds is None else seconds * 1000):
            self._handle(fd, events)
        while self._calls:
            callback, response = self._calls.popleft()
            callback(response)
        for fd in [fd for fd, transport in self._transports.items() if transport.is_over()]:
            self._end(fd)

    def _handle(self, fd: int, events: int) -> None:
        if fd == self._wake_fd:
            self._on_wake()
        elif fd == self._called:
            os.eventfd_read(fd)
        elif fd in self._listeners:
            self._accept(*self._listeners[fd])
        else:
            self._last = time.monotonic()
            transport = self._transports[fd]
            if events & ~select.POLLIN:  # an error is found by sending, too
                transport.send()
            if events & ~select.POLLOUT and not transport.is_closing():
                transport.receive()

    def _accept(self, listener: socket.socket, make: Callable[[], Connection]) -> None:
        try:
            sock, _ = listener.accept()
        except OSError:  # gone again, or no descriptor is left: the client waits
            return
        self._last = time.monotonic()
        sock.setblocking(False)
        transport = EarlyTransport(sock, make())
        self._transports[sock.fileno()] = transport
        transport.connection.connection_made(transport)

    def _end(self, fd: int) -> None:
        transport = self._transports.pop(fd)
        transport.connection.connection_lost(None)
        transport.hang_up()

    def leave(self) -> list[EarlyTransport]:
        """Serve no more; the connections, which another loop goes on with."""
        called, self._called = self._called, -1  # so that a late call fails, and hits nothing
        os.close(called)
        left = list(self._transports.values())
        self._transports.clear()
        return left

    def close(self) -> None:
        """End all connections."""
        for fd in list(self._transports):
            self._end(fd)
        self.leave()
