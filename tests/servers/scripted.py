"""An HTTP server on loopback that serves byte ranges and misbehaves as it is told.

Starts in this process: `with ScriptedServer() as server:`; `server.blobs[path] = bytes` is what it
has, `server.script(prefix, action, times=N)` what it does instead, `server.seen` what it was asked.
With *tls* (an `ssl.SSLContext`) it speaks HTTPS, with *unix_path* it listens there.
"""

import contextlib
import socket
import struct
import threading
from typing import NamedTuple

from tests.servers.ports import free_port

TLS_HELLO = b"\x16"  # first byte of a client that speaks TLS


class Seen(NamedTuple):
    """One request as it came."""

    method: str
    target: str  # as in the request line
    headers: dict[str, str]  # lower-case names
    body: bytes
    connection: int  # number of the connection that it came on

    @property
    def path(self):
        return self.target.partition("?")[0]


class Exchange(NamedTuple):
    """What an action works with."""

    server: "ScriptedServer"
    socket: socket.socket
    request: Seen

    def blob(self):
        return self.server.blobs.get(self.request.path)

    def span(self):
        """First and last byte that were asked for, or None."""
        unit, _, text = self.request.headers.get("range", "").partition("=")
        if unit != "bytes":
            return None
        first, _, last = text.partition("-")
        blob = self.blob() or b""
        return int(first), min(int(last), len(blob) - 1) if last else len(blob) - 1

    def answer(self, status, headers=(), body=b"", length=None):
        """Send one response; *length* lies about the body's size."""
        lines = [f"HTTP/1.1 {status} Status"]
        lines += [f"{name}: {value}" for name, value in dict(headers).items()]
        if length != -1:
            lines.append(f"Content-Length: {len(body) if length is None else length}")
        head = ("\r\n".join(lines) + "\r\n\r\n").encode()
        self.socket.sendall(head + (b"" if self.request.method == "HEAD" else body))


# Actions: called with the exchange; True keeps the connection.


def serve(exchange):
    """What a good server does."""
    blob, span = exchange.blob(), exchange.span()
    if blob is None:
        exchange.answer(404, body=b"no such blob")
    elif span is None or exchange.request.method == "HEAD":
        length = len(blob) if exchange.request.method == "HEAD" else None
        exchange.answer(200, body=blob, length=length)
    elif span[0] >= len(blob):
        exchange.answer(416, {"Content-Range": f"bytes */{len(blob)}"})
    else:
        exchange.answer(206, ranged(blob, span), blob[span[0] : span[1] + 1])
    return True


def ranged(blob, span):
    return {"Content-Range": f"bytes {span[0]}-{span[1]}/{len(blob)}"}


def status(code, headers=(), body=b""):
    """An answer with that status."""

    def act(exchange):
        exchange.answer(code, headers, body)
        return True

    return act


def redirect(url, code=307):
    return status(code, {"Location": url})


def short_body(count):
    """*count* bytes of the range, then the connection ends."""

    def act(exchange):
        span, blob = exchange.span(), exchange.blob()
        body = blob[span[0] : span[1] + 1]
        exchange.answer(206, ranged(blob, span), body[:count], length=len(body))
        return False

    return act


def short_range(count):
    """A whole answer to a smaller range than the one asked for."""

    def act(exchange):
        first, blob = exchange.span()[0], exchange.blob()
        exchange.answer(206, ranged(blob, (first, first + count - 1)), blob[first : first + count])
        return True

    return act


def long_body(extra):
    """The range and *extra* bytes more, without saying how long it is."""

    def act(exchange):
        span, blob = exchange.span(), exchange.blob()
        body = blob[span[0] : span[1] + 1] + b"x" * extra
        exchange.answer(206, ranged(blob, span), body, length=-1)
        return False

    return act


def wrong_range(shift):
    """Other bytes than asked for, and the header says so."""

    def act(exchange):
        first, last = exchange.span()
        blob = exchange.blob()
        span = (first + shift, last + shift)
        exchange.answer(206, ranged(blob, span), blob[span[0] : span[1] + 1])
        return True

    return act


def corrupt(exchange):
    """The right number of wrong bytes."""
    span, blob = exchange.span(), exchange.blob()
    body = bytes(byte ^ 0x5A for byte in blob[span[0] : span[1] + 1])
    exchange.answer(206, ranged(blob, span), body)
    return True


def whole_blob(exchange):
    """200 with everything, whatever was asked for."""
    exchange.answer(200, body=exchange.blob())
    return True


def trickle(count, seconds):
    """The right answer, *count* bytes at a time with pauses of *seconds*."""

    def act(exchange):
        span, blob = exchange.span(), exchange.blob()
        body = blob[span[0] : span[1] + 1]
        exchange.answer(206, ranged(blob, span), b"", length=len(body))
        while body and not exchange.server.closing.wait(seconds):
            exchange.socket.sendall(body[:count])
            body = body[count:]
        return True

    return act


def late(seconds, action=serve):
    """*action* after *seconds*."""

    def act(exchange):
        exchange.server.closing.wait(seconds)
        return action(exchange)

    return act


def hang(exchange):
    """Nothing, until the server closes."""
    exchange.server.closing.wait()
    return False


def raw(data):
    """Those bytes instead of a response."""

    def act(exchange):
        exchange.socket.sendall(data)
        return False

    return act


def hang_up(exchange):
    """The connection ends without a word."""
    return False


def reset(exchange):
    """The connection is torn down (RST)."""
    exchange.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


class Rule:
    def __init__(self, prefix, action, times, method):
        self.prefix, self.action, self.left, self.method = prefix, action, times, method

    def matches(self, request):
        return (
            self.left != 0
            and request.path.startswith(self.prefix)
            and self.method in (None, request.method)
        )


class ScriptedServer:
    """Serves until `close`; a context manager."""

    def __init__(self, blobs=(), *, tls=None, unix_path=None, port=0):
        self.blobs = dict(blobs)
        self.seen = []
        self.closing = threading.Event()
        self._rules = []
        self._tls = tls
        self._lock = threading.Lock()
        self._sockets = set()
        self._connections = 0
        self._threads = []
        if unix_path is not None:
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(unix_path))
            self.port = 0
        else:
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port or free_port()))
            self.port = self._listener.getsockname()[1]
        self._listener.listen(256)
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    @property
    def host(self):
        """`name:port`; `localhost` with TLS, which test certificates are made out to."""
        return f"{'localhost' if self._tls else '127.0.0.1'}:{self.port}"

    @property
    def url(self):
        return f"{'https' if self._tls else 'http'}://{self.host}"

    def script(self, prefix, action, times=-1, method=None):
        """*action* for the next *times* requests (-1: all) below *prefix*; newest rule first."""
        with self._lock:
            self._rules.insert(0, Rule(prefix, action, times, method))

    def unscript(self):
        """Be good again."""
        with self._lock:
            self._rules.clear()

    def count(self, prefix="/"):
        """Requests below *prefix* so far."""
        with self._lock:
            return sum(seen.path.startswith(prefix) for seen in self.seen)

    def close(self):
        self.closing.set()
        # A blocked accept does not notice that its socket was closed.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            sockets = list(self._sockets)
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(60)

    def _start(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._sockets.add(connection)
                self._connections += 1
                number = self._connections
            self._start(self._serve, connection, number)

    def _serve(self, connection, number):
        # What a client does to a connection is its affair, and the server's that of a test.
        with contextlib.suppress(OSError, ValueError, IndexError, TypeError):
            if self._tls is not None:
                plain = connection
                connection = self._tls.wrap_socket(connection, server_side=True)
                with self._lock:
                    self._sockets.discard(plain)
                    self._sockets.add(connection)
            with connection.makefile("rb") as stream:
                while self._serve_one(connection, stream, number):
                    pass
        with self._lock:
            self._sockets.discard(connection)
        connection.close()

    def _serve_one(self, connection, stream, number):
        request = read_request(stream, number)
        if request is None:
            return False
        with self._lock:
            self.seen.append(request)
            rule = next((rule for rule in self._rules if rule.matches(request)), None)
            if rule is not None:
                rule.left -= 1
        action = rule.action if rule else serve
        if not request.method:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return False
        return action(Exchange(self, connection, request)) and not self.closing.is_set()


def read_request(stream, number):
    """The next request of a connection, None at its end."""
    if stream.peek(1)[:1] == TLS_HELLO:  # answered as servers do, in plain text
        return Seen("", "/", {}, b"", number)
    line = stream.readline(65537).decode("latin-1").split()
    if len(line) != 3:
        return None
    headers = {}
    while (text := stream.readline(65537).decode("latin-1").strip()) != "":
        name, _, value = text.partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return Seen(line[0], line[1], headers, body, number)
