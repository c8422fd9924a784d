"""One HTTP request and its response, as data; no network in it.

A URL is shown without its query and without user and password: a presigned query is a secret.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from typing_extensions import Buffer

Headers = tuple[tuple[str, str], ...]

MEMORY_BODY_MAX = 1 << 20  # bytes of a body that is kept in memory: tokens, lists, excuses
SHOWN_URL_MAX = 200


def shown_url(url: str) -> str:
    """*url* fit for a log: without query, fragment, user and password, and printable."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    rest = rest.partition("#")[0].partition("?")[0]
    host, slash, path = rest.partition("/")
    host = host.rpartition("@")[2]
    whole = f"{scheme}{separator}{host}{slash}{path}"[:SHOWN_URL_MAX]
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole)


class Tls(NamedTuple):
    """How the other side of a TLS connection is checked, and how we show who we are."""

    verify: bool = True  # certificate and host name
    ca_files: tuple[str, ...] = ()  # PEM, beside those of the system
    certificate_file: str = ""  # PEM, our own
    key_file: str = ""  # PEM; "" = in the certificate file


class Request(NamedTuple):
    """One request; change one with `_replace`.

    With *buffer* the body goes straight into it, and *offset* is where in the blob it begins: the
    range of exactly that many bytes is asked for and nothing else is accepted. Without, the body
    (at most *size* bytes) is kept in memory; *offset* None means no range at all.
    """

    url: str
    method: str = "GET"  # GET, HEAD or POST
    headers: Headers = ()
    buffer: Buffer | None = None
    offset: int | None = None
    size: int = MEMORY_BODY_MAX
    body: bytes = b""  # of a POST
    timeout: float = 0.0  # seconds for all of it; 0 = as long as bytes keep coming
    connect_timeout: float = 0.0  # seconds; 0 = none of its own
    tls: Tls = Tls()
    proxy: str = ""  # URL of an HTTP proxy
    unix_socket: str = ""
    # Bytes of a 200 that may be thrown away to get to *offset*, from servers without ranges.
    skip_max: int = 0
    background: bool = False  # nobody waits for it
    redirected: bool = False  # to a server that is not the backend's own: no mirror stands for it

    def __repr__(self) -> str:
        """Method, URL and range; no header, no secret."""
        where = f" via {shown_url(self.proxy)}" if self.proxy else ""
        return f"<{self.method} {shown_url(self.url)}{self.range_text()}{where}>"

    def wanted_bytes(self) -> int:
        """How many bytes are asked for, or the most that are kept."""
        return memoryview(self.buffer).nbytes if self.buffer is not None else self.size

    def range_text(self) -> str:
        """` bytes A-B` for messages, or nothing."""
        if self.offset is None:
            return ""
        return f" bytes {self.offset}-{self.offset + self.wanted_bytes() - 1}"


class Response(NamedTuple):
    """What came back; any status."""

    status: int
    headers: dict[str, str]  # lower-case names
    received: int  # bytes that are in the buffer
    body: bytes  # what was kept in memory instead; the beginning of an error's text
    seconds: float  # from handing the request over to the last byte
    first_byte_seconds: float

    def __repr__(self) -> str:
        """Status and count; headers and bodies may hold secrets."""
        return f"<status {self.status}, {self.received} bytes>"
