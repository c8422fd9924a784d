"""Whether every source of a backend can be reached, and in plain words why not.

Asked by `nydusd --check-backend`. Each source (origin, mirrors, proxy) is asked for one byte of a
blob, once, with the login, signature and TLS settings of a real read and nothing to fall back to;
ping URLs are asked as well. Findings come as they are made. One thread.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

from nydusd.backend.endpoints import MIRROR, ORIGIN, PROXY, Endpoints, Route, origin_of
from nydusd.backend.http import HttpBackend, status_error
from nydusd.backend.open import open_backend
from nydusd.backend.request import Request, shown_url
from nydusd.base.errors import BackendError, FailureKind, NydusError
from nydusd.base.record import NamedTuple
from nydusd.config.model import Connection, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nydusd.backend.request import Response
    from nydusd.backend.transfer import Transfer
    from nydusd.config.model import Backend

PROBED_OFFSET = 1  # so that a server without ranges is told from one with
CLOCK_SECONDS = 300.0  # of difference that are worth a warning; 900 are refused by S3 and OSS
NO_LIMIT_SECONDS = 30.0  # for an answer, where the configuration sets no limit

# What to do about a failure: by a part of libcurl's words, by kind, by status.
WORDS = (
    ("resolve", "the name is not known: check it, and the machine's DNS"),
    (
        "connect to server",
        "nobody listens there: check host and port, and whether the service runs",
    ),
    ("No route", "the machine has no way there: check the network"),
    ("unreachable", "the machine has no way there: check the network"),
)
KINDS = {
    FailureKind.TIMEOUT: "no answer in time: check host and port, firewalls, and whether timeout "
    "and connect_timeout are long enough",
    FailureKind.BROKEN: "the connection ends or HTTP is not spoken there: check scheme and port",
    FailureKind.AUTH: "check the credentials (auth, registry_token, IMAGE_PULL_AUTH)",
    FailureKind.RANGE: "the server gives other bytes than asked for: it cannot be used",
    FailureKind.SHORT: "the server gives fewer bytes than asked for: it cannot be used",
    FailureKind.LONG: "the server gives more bytes than asked for: it cannot be used",
    FailureKind.REDIRECT: "check where the server redirects to, and blob_redirected_host",
}
STATUSES = {
    401: "credentials are wanted, or those that were sent are wrong",
    403: "the credentials may not read this, or the signature is refused: check keys and region",
    404: "there is no such blob: check repo, bucket_name, object_prefix or path, and the blob id",
    407: "the proxy wants credentials: put them into its url",
    416: "the blob is shorter than two bytes",
    429: "too many requests: the server limits this client",
}
SERVER_STATUS = "the server itself has failed; this is nothing that the configuration can mend"


class Finding(NamedTuple):
    """One thing that was found out: "ok", "warning" or "error", and about what."""

    grade: str
    text: str


class _RouteSender:
    """Sends by one route alone."""

    def __init__(self, transfer: Transfer, route: Route) -> None:
        self._transfer = transfer
        self._route = route

    def perform(self, request: Request) -> Response:
        """The response on the route, or straight where the route is not for *request*."""
        route = self._route
        if request.redirected and route.kind != PROXY:
            return self._transfer.perform(request)
        return self._transfer.perform(
            request._replace(
                url=route.url(request.url),
                headers=(*request.headers, *route.headers),
                proxy=route.proxy_url,
            )
        )

    def distrust(self, url: str, offset: int, size: int) -> bool:
        """There is no other source."""
        del url, offset, size
        return False

    def close(self) -> None:
        """Nothing runs."""


def probe_backend(config: Backend, blob_id: str) -> Iterator[Finding]:
    """What is found at each source of *config*, by the blob *blob_id*."""
    try:
        backend = open_backend(stripped(config))
    except NydusError as exc:
        yield Finding("error", str(exc))
        return
    try:
        if isinstance(backend, HttpBackend):
            yield from _probe_http(backend, connection_of(config), blob_id)
        else:
            reader = backend.reader(blob_id)
            try:
                reader.read_into(bytearray(1), 0)
                yield Finding("ok", f"blob {blob_id}: {reader.size()} bytes, can be read")
            finally:
                reader.close()
    except NydusError as exc:
        yield Finding("error", str(exc))
    finally:
        backend.close()


def _probe_http(backend: HttpBackend, connection: Connection, blob_id: str) -> Iterator[Finding]:
    origin = origin_of(backend.url(blob_id))
    for route in sources_of(connection):
        name = f"{route.kind} {shown_url(route.base or route.proxy_url or origin)}"
        if route.kind != ORIGIN:
            # The origin comes first: a login that it has led to is there already.
            backend.sender = _RouteSender(backend.transfer, route)
        yield from _probe_source(backend, name, blob_id)
    for key, url in ping_urls(connection):
        yield _ping(backend, key, url)


def _probe_source(backend: HttpBackend, name: str, blob_id: str) -> Iterator[Finding]:
    request = backend.request(
        backend.url(blob_id), backend.retry.timeout or NO_LIMIT_SECONDS
    )._replace(buffer=bytearray(1), offset=PROBED_OFFSET)
    began = time.monotonic()
    try:
        response = backend.exchange(request, blob_id)
        if not 200 <= response.status < 300:
            raise status_error(request, response)
    except BackendError as exc:
        yield Finding("error", f"{name}: {told(exc)}")
        return
    milliseconds = (time.monotonic() - began) * 1000
    yield Finding(
        "ok", f"{name}: byte {PROBED_OFFSET} of blob {blob_id[:12]} read in {milliseconds:.0f} ms"
    )
    if response.status == 200:
        yield Finding(
            "warning",
            f"{name}: answers a range with the whole blob: reads beyond the first 4 MiB will fail",
        )
    difference = clock_difference(response.headers.get("date", ""))
    if abs(difference) > CLOCK_SECONDS:
        way = "behind" if difference > 0 else "ahead of"
        yield Finding(
            "warning", f"{name}: this machine's clock is {abs(difference):.0f} s {way} the server's"
        )


def _ping(backend: HttpBackend, key: str, url: str) -> Finding:
    request = Request(
        url,
        timeout=backend.retry.timeout or NO_LIMIT_SECONDS,
        connect_timeout=float(backend.connection.connect_timeout),
        tls=backend.tls,
    )
    try:
        status = backend.transfer.perform(request).status
    except BackendError as exc:
        return Finding("error", f"{key}: {told(exc)}")
    limit = 400 if key.startswith("proxy") else 500
    sound = 200 <= status < limit
    text = f"{key}: {shown_url(url)} answers {status}"
    return Finding("ok", text) if sound else Finding("error", f"{text}: it counts as down")


def told(error: BackendError) -> str:
    """*error* without the request, which is the same each time, and what to do about it."""
    text = str(error)
    reason = text.rpartition(">: ")[2]
    if error.kind is FailureKind.STATUS:
        hint = STATUSES.get(error.status, SERVER_STATUS if error.status >= 500 else "")
    else:
        hint = next((advice for word, advice in WORDS if word in text), KINDS.get(error.kind, ""))
    return f"{reason}: {hint}" if hint else reason


def clock_difference(date: str) -> float:
    """Seconds that the clock of who sent the header *date* is ahead of ours; 0: it tells none."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0


def sources_of(connection: Connection) -> list[Route]:
    """One route to each source, the origin first."""
    routes = Endpoints(connection._replace(hedged_reads=False)).routes()
    order = {ORIGIN: 0, MIRROR: 1, PROXY: 1}
    return sorted(routes, key=lambda route: (order[route.kind], route.number))


def ping_urls(connection: Connection) -> Iterator[tuple[str, str]]:
    """Key and URL of each ping URL that is set."""
    if connection.proxy.url and connection.proxy.ping_url:
        yield "proxy.ping_url", connection.proxy.ping_url
    for number, mirror in enumerate(connection.mirrors):
        if mirror.ping_url:
            yield f"mirrors[{number}].ping_url", mirror.ping_url


def connection_of(config: Backend) -> Connection:
    """The connection of the backend that *config* names."""
    section = getattr(config, config.type.replace("-", "_"), None)
    connection: Connection = getattr(section, "connection", Connection())
    return connection


def stripped(config: Backend) -> Backend:
    """*config* without mirrors and proxy: each source is asked by itself."""
    name = config.type.replace("-", "_")
    section = getattr(config, name, None)
    if section is None or not hasattr(section, "connection"):
        return config
    alone = section.connection._replace(mirrors=(), proxy=Proxy())
    return config._replace(**{name: section._replace(connection=alone)})
