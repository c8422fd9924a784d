"""An HTTP/1.1 server on loopback that does what it is told: serve objects, and play faults.

Plain sockets and a thread for each connection, so that every byte and every pause can be chosen.
`faults.py` has the answers that a sound server never gives. What was asked and sent is counted.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import NamedTuple

from tests.servers.ports import free_port

MOST_HEAD_BYTES = 1 << 16
SEND_BYTES = 1 << 16
TLS_HELLO = b"\x16"  # how a client that speaks TLS begins; servers answer it in plain text


class Request(NamedTuple):
    """One request as it came."""

    method: str
    target: str  # as it stood in the request line; absolute when sent to a proxy
    headers: dict[str, str]  # lower-case names
    connection: int  # number of the connection, from 0
    body: bytes = b""

    @property
    def path(self) -> str:
        """The target without scheme, host and query."""
        target = self.target
        if "://" in target:
            target = "/" + target.partition("://")[2].partition("/")[2]
        return target.partition("?")[0]

    @property
    def range(self) -> tuple[int, int | None] | None:
        """First and last byte asked for (last None: to the end); None when all is asked for."""
        value = self.headers.get("range", "")
        first, dash, last = value.removeprefix("bytes=").partition("-")
        if not value.startswith("bytes=") or not dash or not first.isdecimal():
            return None
        return int(first), int(last) if last else None


class Gone(Exception):
    """The client has hung up, or the server is stopped: nobody waits for this answer."""


class Exchange:
    """One request and the means to answer it, soundly or not."""

    def __init__(self, server: LoopbackServer, sock: socket.socket, request: Request) -> None:
        self.server = server
        self.sock = sock
        self.request = request
        self.content = server.objects.get(request.path)
        self.keep_alive = request.headers.get("connection", "").lower() != "close"

    @property
    def part(self) -> bytes:
        """The bytes that are asked for; all when no range is."""
        content = self.content or b""
        asked = self.request.range
        if asked is None:
            return content
        first, last = asked
        return content[first : None if last is None else last + 1]

    def part_headers(self) -> dict[str, str]:
        """The headers that say which bytes `part` are."""
        asked = self.request.range
        if asked is None:
            return {}
        last = asked[0] + len(self.part) - 1
        return {"Content-Range": f"bytes {asked[0]}-{last}/{len(self.content or b'')}"}

    def send(self, data: bytes) -> None:
        """Exactly *data* on the wire, at the server's rate; `Gone` when nobody takes it."""
        view = memoryview(data)
        try:
            while view:
                piece = view[: self.server.pace(len(view))]
                self.sock.sendall(piece)
                self.server.count_bytes(len(piece))
                view = view[len(piece) :]
        except OSError as exc:
            raise Gone from exc

    def head(self, status: int, headers: dict[str, str], reason: str = "Status") -> None:
        """A status line and *headers*, ended."""
        lines = [f"HTTP/1.1 {status} {reason}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        """A whole answer; names of *headers* are written with `_` for `-`."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        named.setdefault("Content-Length", str(len(body)))
        self.head(status, named)
        if self.request.method != "HEAD":
            self.send(body)

    def serve(self) -> None:
        """What a sound server answers."""
        if self.content is None:
            self.answer(404, b"no such object\n")
            return
        asked = self.request.range
        base = {"Accept_Ranges": "bytes", "Date": formatdate(usegmt=True)}
        if self.request.method == "HEAD":
            self.answer(200, b"", Content_Length=str(len(self.content)), **base)
        elif asked is not None and asked[0] >= len(self.content):
            self.answer(416, Content_Range=f"bytes */{len(self.content)}", **base)
        else:
            headers = {name.replace("-", "_"): value for name, value in self.part_headers().items()}
            self.answer(200 if asked is None else 206, self.part, **headers, **base)

    def hang(self, seconds: float | None = None) -> None:
        """Do nothing for *seconds*, or for ever: until the server heals or the client is gone."""
        deadline = None if seconds is None else time.monotonic() + seconds
        healed = self.server.healed
        with selectors.DefaultSelector() as selector:
            selector.register(self.sock, selectors.EVENT_READ)
            while not healed.is_set():
                left = 0.05 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return
                if selector.select(min(left, 0.05)) and self._is_hung_up():
                    raise Gone
        if deadline is None:
            raise Gone  # what was held back is not sent after all

    def _is_hung_up(self) -> bool:
        if isinstance(self.sock, ssl.SSLSocket):
            return True  # nothing but its end comes from a client that waits
        try:
            return not self.sock.recv(1, socket.MSG_PEEK)
        except OSError:
            return True

    def reset(self) -> None:
        """End the connection with RST."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


Play = Callable[[Exchange], None]


class Rule(NamedTuple):
    """When to play what: *left* counts down, None is for ever."""

    play: Play
    method: str
    path: str  # a part of the request's path
    left: list[int] | None


class LoopbackServer:
    """Serves `objects` (path -> bytes) by the rules it was given; a context manager.

    *tls* makes it an https server. *unix* is the path of a socket to listen on instead of a port.
    """

    def __init__(
        self,
        objects: dict[str, bytes] | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        unix: Path | None = None,
    ) -> None:
        self.objects = objects or {}
        self.tls = tls
        self.unix = unix
        self.port = 0
        self.requests: list[Request] = []
        self.bytes_sent = 0
        self.connections = 0
        self.delay = 0.0  # seconds before each answer: the round trip of a farther server
        self.rate = 0.0  # bytes a second over all connections together; 0: no limit
        # Called with each new connection, before TLS; True: it was dealt with, close it.
        self.greet: Callable[[socket.socket], bool] | None = None
        self.healed = threading.Event()
        self.stopping = threading.Event()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._sent_until = 0.0
        self._listener: socket.socket | None = None

    def __enter__(self) -> LoopbackServer:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self.tls else 'http'}://{self.netloc}"

    @property
    def netloc(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    def script(
        self, play: Play, method: str = "", path: str = "", times: int | None = None
    ) -> None:
        """Play *play* for the next *times* requests (None: all) of *method* with *path* in them.

        Of several rules that fit, the one given first is played.
        """
        with self._lock:
            self.healed.clear()
            self._rules.append(Rule(play, method, path, None if times is None else [times]))

    def heal(self) -> None:
        """Forget every rule, and let go what hangs."""
        with self._lock:
            self._rules.clear()
            self.greet = None
        self.healed.set()

    def forget(self) -> None:
        """Count from zero again."""
        with self._lock:
            self.requests.clear()
            self.bytes_sent = 0
            self.connections = 0

    def start(self) -> None:
        """Listen; on the same port as before when it was stopped."""
        if self.unix is not None:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(self.unix))
        else:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.port = self.port or free_port()
            listener.bind(("127.0.0.1", self.port))
        listener.listen(256)
        self._listener = listener
        self.healed.clear()
        self.stopping.clear()
        self._spawn(self._accept, listener)

    def stop(self) -> None:
        """Refuse connections from now on and cut those that there are."""
        if self._listener is None:
            return
        self.healed.set()
        self.stopping.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = None
        self.cut()
        for thread in self._threads:
            thread.join(60)
        self._threads.clear()
        if self.unix is not None:
            self.unix.unlink(missing_ok=True)

    def cut(self) -> None:
        """End every open connection."""
        with self._lock:
            open_now = list(self._open)
        for sock in open_now:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def pace(self, wanted: int) -> int:
        """How much of *wanted* bytes to send now, after the pause that the rate asks for."""
        if not self.rate:
            return wanted
        size = min(wanted, SEND_BYTES)
        with self._lock:
            self._sent_until = max(self._sent_until, time.monotonic()) + size / self.rate
            pause = self._sent_until - time.monotonic()
        if pause > 0.001:
            self.stopping.wait(pause)
        return size

    def count_bytes(self, count: int) -> None:
        """Add *count* to what was sent."""
        with self._lock:
            self.bytes_sent += count

    def count(self, method: str = "", path: str = "") -> int:
        """How many requests of *method* with *path* in them have come."""
        with self._lock:
            return sum(
                (not method or each.method == method) and path in each.target
                for each in self.requests
            )

    def wait_for(self, requests: int, timeout: float = 60) -> None:
        """Until so many requests have come; `TimeoutError` after *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while len(self.requests) < requests:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(self.requests)} requests of {requests} have come")
            time.sleep(0.002)

    def handle(self, exchange: Exchange) -> None:
        """Answer one request: by the first rule that fits, else soundly. To be overridden."""
        play = self._next_rule(exchange.request)
        if play is not None:
            play(exchange)
        else:
            self.respond(exchange)

    def respond(self, exchange: Exchange) -> None:
        """What this server answers when no rule fits."""
        exchange.serve()

    def _next_rule(self, request: Request) -> Play | None:
        with self._lock:
            for rule in self._rules:
                if (rule.method and rule.method != request.method) or rule.path not in request.path:
                    continue
                if rule.left is not None:
                    if rule.left[0] == 0:
                        continue
                    rule.left[0] -= 1
                return rule.play
        return None

    def _spawn(self, run: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                number = self.connections
                self.connections += 1
                self._open.add(sock)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._spawn(self._connection, sock, number)

    def _connection(self, raw: socket.socket, number: int) -> None:
        sock = raw
        try:
            greet = self.greet
            if greet is not None and greet(raw):
                return
            if self.tls is not None:
                sock = self.tls.wrap_socket(raw, server_side=True)
                with self._lock:
                    self._open.discard(raw)
                    self._open.add(sock)
            self._requests(sock, number)
        except (OSError, Gone, ValueError):
            pass
        finally:
            with self._lock:
                self._open.discard(sock)
                self._open.discard(raw)
            sock.close()
            raw.close()

    def _requests(self, sock: socket.socket, number: int) -> None:
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                data = sock.recv(1 << 16)
                if not data or len(pending) > MOST_HEAD_BYTES:
                    return
                pending += data
                if pending.startswith(TLS_HELLO):
                    sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
                    return
            head, _, pending = pending.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            pairs = (line.partition(":") for line in lines)
            headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
            length = int(headers.get("content-length", "0"))
            while len(pending) < length:
                data = sock.recv(1 << 16)
                if not data:
                    return
                pending += data
            body, pending = pending[:length], pending[length:]
            request = Request(method, target, headers, number, body)
            with self._lock:
                self.requests.append(request)
            if self.delay:
                self.stopping.wait(self.delay)
            exchange = Exchange(self, sock, request)
            self.handle(exchange)
            if not exchange.keep_alive:
                return
