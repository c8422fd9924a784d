"""HTTP/1.1 as the control socket speaks it: bytes in, requests out; answers as bytes.

Knows the protocol and no endpoint. The parser holds one connection's unread bytes and never more
than its limits; whatever it cannot make sense of is a `MalformedRequest`, after which nothing of
that connection can be understood any more. Words and headers of answers are the reference's
(spec: http-api, transport).
"""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

from nydusd.base.record import NamedTuple

LINE_BYTES: Final = 8192  # a request line or a header line, without its end
HEAD_BYTES: Final = 64 << 10  # all of them together
HEADERS_MAX: Final = 100
BODY_BYTES: Final = 51200
QUERY_FIELDS: Final = 100

METHODS: Final = frozenset({"GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"})
SERVER: Final = "Nydus API"
TRANSPORT: Final = "Firecracker API"  # who the reference says it is below its routes
JSON: Final = "application/json"
CONTINUE: Final = b"HTTP/1.1 100 \r\n\r\n"
TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz")


class MalformedRequest(Exception):
    """What came is not a request; *text* tells the client why."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


class Request(NamedTuple):
    """One request as it was sent: nothing of it has been judged yet."""

    method: str
    path: str  # percent-decoded nowhere: routes are compared as they are written
    query: dict[str, str]  # decoded; the first of several values
    body: bytes  # b"" = none
    keep_alive: bool = True


class Response(NamedTuple):
    """An answer; a *body* of None has neither type nor length (204)."""

    status: int
    body: bytes | None = None
    content_type: str = JSON


class _Head(NamedTuple):
    """A request line and its headers, understood; the body has yet to come."""

    method: str
    target: str
    length: int
    chunked: bool
    expects_continue: bool
    keep_alive: bool


def encode(response: Response, *, keep_alive: bool = True) -> bytes:
    """The bytes of *response*; the status line has no reason, as the reference's."""
    connection = "keep-alive" if keep_alive else "close"
    head = f"HTTP/1.1 {response.status} \r\nServer: {SERVER}\r\nConnection: {connection}\r\n"
    if response.body is None:
        return f"{head}\r\n".encode()
    head += f"Content-Type: {response.content_type}\r\nContent-Length: {len(response.body)}\r\n\r\n"
    return head.encode() + response.body


def encode_transport_error(status: int, text: str) -> bytes:
    """The answer to what is no request; the connection ends with it."""
    body = f'{{ "error": "{text}" }}'.encode("ascii", "backslashreplace")
    return (
        f"HTTP/1.1 {status} \r\nServer: {TRANSPORT}\r\nConnection: close\r\n"
        f"Content-Type: {JSON}\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def malformed_text(exc: MalformedRequest) -> str:
    """What the client is told of a `MalformedRequest`; the newline is meant to be a raw one."""
    return f"{exc.text}\nAll previous unanswered requests will be dropped."


class RequestParser:
    """Turns the bytes of one connection into requests, however they are cut into pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._scanned = 0  # no end of a head begins before it
        self._head: _Head | None = None
        self._body = bytearray()  # of a chunked body, what has come
        self._continued = False

    def feed(self, data: bytes) -> None:
        """Add *data*, what the connection has received."""
        self._buffer += data

    @property
    def pending_bytes(self) -> int:
        """Bytes that have been fed and not been taken by a request."""
        return len(self._buffer)

    def wants_continue(self) -> bool:
        """Whether the client now waits for `CONTINUE`; true once a request."""
        if self._head is None or not self._head.expects_continue or self._continued:
            return False
        self._continued = True
        return True

    def next_request(self) -> Request | None:
        """The next whole request, None when more bytes are needed; `MalformedRequest`."""
        if self._head is None:
            self._head = self._take_head()
            if self._head is None:
                return None
        body = self._take_chunks() if self._head.chunked else self._take(self._head.length)
        if body is None:
            return None
        head, self._head, self._continued = self._head, None, False
        path, query = split_target(head.target)
        return Request(head.method, path, query, body, head.keep_alive)

    def _take(self, count: int) -> bytes | None:
        if len(self._buffer) < count:
            return None
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    # --- request line and headers

    def _take_head(self) -> _Head | None:
        while self._buffer[:2] == b"\r\n":  # empty lines before a request are passed over
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n", self._scanned)
        if end < 0:
            self._check_unfinished()
            self._scanned = max(0, len(self._buffer) - 3)
            return None
        self._scanned = 0
        if end > HEAD_BYTES:
            raise MalformedRequest("Invalid request.")
        head = self._take(end + 4)
        assert head is not None
        lines = head[:-4].split(b"\r\n")
        if any(len(line) > LINE_BYTES for line in lines):
            raise MalformedRequest("Invalid request.")
        if len(lines) > HEADERS_MAX + 1:
            raise MalformedRequest(f"Invalid header. Reason: More than {HEADERS_MAX} headers.")
        method, target, version = read_request_line(lines[0])
        return head_of(method, target, version, read_headers(lines[1:]))

    def _check_unfinished(self) -> None:
        """Refuse a head that is too long before its end has come."""
        unfinished = len(self._buffer) - (self._buffer.rfind(b"\r\n") + 1)
        if len(self._buffer) > HEAD_BYTES or unfinished > LINE_BYTES + 2:
            raise MalformedRequest("Invalid request.")
        first = self._buffer.find(b"\r\n")
        if first >= 0:
            read_request_line(bytes(self._buffer[:first]))

    # --- chunked bodies

    def _take_chunks(self) -> bytes | None:
        while True:
            end = self._buffer.find(b"\r\n")
            if end < 0:
                if len(self._buffer) > LINE_BYTES:
                    raise MalformedRequest("Invalid request.")
                return None
            size = read_chunk_size(bytes(self._buffer[:end]))
            check_body_size(len(self._body) + size)
            if size == 0:
                return self._take_trailer(end + 2)
            if len(self._buffer) < end + 2 + size + 2:
                return None
            if self._buffer[end + 2 + size : end + 4 + size] != b"\r\n":
                raise MalformedRequest("Invalid request.")
            self._body += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 4 + size]

    def _take_trailer(self, start: int) -> bytes | None:
        """The whole body, once the lines after the last chunk have come; they mean nothing."""
        if self._buffer[start : start + 2] == b"\r\n":
            end = start + 2
        else:
            end = self._buffer.find(b"\r\n\r\n", start) + 4
            if end < 4:
                if len(self._buffer) > HEAD_BYTES:
                    raise MalformedRequest("Invalid request.")
                return None
        del self._buffer[:end]
        body = bytes(self._body)
        self._body.clear()
        return body


def read_request_line(line: bytes) -> tuple[str, str, str]:
    """Method, target and version; `MalformedRequest`."""
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[1]:
        raise MalformedRequest("Invalid request.")
    method, target, version = words
    if method not in METHODS:
        raise MalformedRequest("Invalid HTTP Method: Unsupported HTTP method.")
    if version not in ("HTTP/1.0", "HTTP/1.1"):
        raise MalformedRequest("Invalid HTTP Version: Unsupported HTTP version.")
    if not target.isascii() or not target.isprintable():
        raise MalformedRequest("Invalid URI: Not printable ASCII.")
    return method, target, version


def read_headers(lines: list[bytes]) -> list[tuple[str, str]]:
    """Names in lower case with their values; `MalformedRequest`."""
    headers = []
    for line in lines:
        name, colon, value = line.decode("latin-1").partition(":")
        name = name.lower()
        if not colon or not name or not TOKEN.issuperset(name) or "\0" in value or "\n" in value:
            raise MalformedRequest(f"Invalid header. Reason: Invalid name. Header: {shown(line)}")
        headers.append((name, value.strip(" \t")))
    return headers


def head_of(method: str, target: str, version: str, headers: list[tuple[str, str]]) -> _Head:
    """What the headers say of the body and the connection; `MalformedRequest`."""
    length: int | None = None
    chunked = expects = False
    keep_alive = version == "HTTP/1.1"
    for name, value in headers:
        if name == "content-length":
            if not (value.isascii() and value.isdecimal() and len(value) <= 19) or (
                length is not None and length != int(value)
            ):
                raise MalformedRequest(
                    "Invalid header. Reason: Invalid content length. "
                    f"Header: Content-Length: {shown(value.encode())}"
                )
            length = int(value)
        elif name == "transfer-encoding":
            if value.lower() != "chunked" or chunked:
                raise MalformedRequest(
                    f"Invalid header. Reason: Unsupported value. Header: {shown(value.encode())}"
                )
            chunked = True
        elif name == "expect":
            expects = value.lower() == "100-continue"
        elif name == "connection":
            words = {word.strip().lower() for word in value.split(",")}
            keep_alive = "close" not in words and (keep_alive or "keep-alive" in words)
    if chunked and length is not None:
        raise MalformedRequest("Invalid header. Reason: Both a length and chunks.")
    check_body_size(length or 0)
    return _Head(method, target, length or 0, chunked, expects, keep_alive)


def check_body_size(size: int) -> None:
    """`MalformedRequest` when a body of *size* bytes is too large."""
    if size > BODY_BYTES:
        raise MalformedRequest(
            f"Request payload with size {size} is larger than the limit of {BODY_BYTES} "
            "allowed by server."
        )


def read_chunk_size(line: bytes) -> int:
    """The size of a chunk by its first line, extensions passed over; `MalformedRequest`."""
    digits = line.partition(b";")[0].strip(b" \t")
    if not 1 <= len(digits) <= 8 or not set(digits) <= set(b"0123456789abcdefABCDEF"):
        raise MalformedRequest("Invalid request.")
    return int(digits, 16)


def split_target(target: str) -> tuple[str, dict[str, str]]:
    """The path of an origin or absolute *target*, and its query, form-decoded."""
    query_text = ""
    if target.startswith("/"):  # not through urlsplit, for which "//x" is a host
        path, _, query_text = target.partition("?")
    else:
        try:
            parts = urlsplit(target)
        except ValueError as exc:
            raise MalformedRequest("Invalid URI: Not a URI.") from exc
        if parts.scheme not in ("http", "https"):
            raise MalformedRequest("Invalid URI: Neither a path nor http.")
        path, query_text = parts.path or "/", parts.query
    query: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            query_text.partition("#")[0],
            keep_blank_values=True,
            errors="surrogateescape",
            max_num_fields=QUERY_FIELDS,
        )
    except ValueError as exc:
        raise MalformedRequest("Invalid URI: Too many fields in the query.") from exc
    for name, value in pairs:
        query.setdefault(name, value)
    return path.partition("#")[0], query


def shown(raw: bytes) -> str:
    """*raw*, what a client sent, as a message may repeat it: short, printable, without quotes."""
    text = raw[:80].decode("ascii", "backslashreplace").replace('"', "'")
    return "".join(each for each in text if each.isprintable())
