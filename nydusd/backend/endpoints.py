"""Which server the next request goes to: the origin, mirrors before it, or a proxy.

Knows which of them live, from what requests and health checks report; sends nothing itself. The
reader of ranges asks for `routes`, tries them in order within one read, and reports what became of
each. Health checks are due when `due_checks` says so, whoever sends them. Any thread.

Sources: spec storage-backends, 2 (proxy) and 3 (mirrors), and what goes beyond them here: a source
that fails is counted whatever way it fails, one that worked starts from zero again; a proxy without
a `ping_url` is left out as well while it fails; when nothing else is left, sources that are down
are tried rather than none.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from nydusd.backend.latency import Latency
from nydusd.backend.request import shown_url
from nydusd.base.errors import BackendError
from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.config.model import Connection, Mirror, Proxy

ORIGIN: Final = "origin"
MIRROR: Final = "mirror"
PROXY: Final = "proxy"

PROXY_FAILURE_LIMIT: Final = 5  # in a row; as a mirror has it by default
HEDGE_SHARE: Final = 0.05  # requests sent twice, of all
HEDGE_BURST: Final = 10.0  # that may be sent twice before their share counts
LOST_IN_A_ROW: Final = 2  # hedged requests lost by a source before it is asked last
SLOW_S: Final = 10.0  # for how long that is, doubled each time it is still slow
MOST_SLOW_S: Final = 80.0

STATUS_TOO_MANY: Final = 429
STATUS_UNAUTHORIZED: Final = 401
P2P_HEADERS: Final = (("x-dragonfly-use-p2p", "true"),)
P2P_ON_DEMAND: Final = (*P2P_HEADERS, ("x-dragonfly-priority", "6"))
P2P_PREFETCH: Final = (
    *P2P_HEADERS,
    ("x-dragonfly-priority", "3"),
    ("x-dragonfly-prefetch", "true"),
)


class Route(NamedTuple):
    """One way to the bytes: where the request goes and what changes in it."""

    kind: str
    number: int  # of the source; the same for every route to it
    base: str = ""  # scheme://host[:port] that takes the place of the URL's, "" leaves it
    headers: tuple[tuple[str, str], ...] = ()
    proxy_url: str = ""
    plain: bool = False  # ask the proxy for http where the URL has https

    def __repr__(self) -> str:
        """Kind and number: headers and URLs may hold secrets."""
        return f"Route({self.kind} {self.number})"

    def url(self, url: str) -> str:
        """*url* as it is asked for on this route."""
        if self.base:
            parts = urlsplit(url)
            query = f"?{parts.query}" if parts.query else ""
            return f"{self.base}{parts.path}{query}"
        if self.plain and url.startswith("https://"):
            return "http://" + url.removeprefix("https://")
        return url


class Check(NamedTuple):
    """A health check to send: GET *url*, straight, without following redirects."""

    number: int
    url: str
    timeout: float  # seconds, for the connection; 0: none


class _Source:
    """One server and what is known of it; guarded by the lock of its `Endpoints`."""

    __slots__ = (
        "auth_through",
        "available",
        "failures",
        "interval",
        "latency",
        "limit",
        "lost",
        "next_check",
        "ping_url",
        "route",
        "slow_s",
        "slow_until",
    )

    def __init__(self, route: Route, ping_url: str, interval: float, limit: int) -> None:
        self.route = route
        self.ping_url = ping_url  # "" when it is only found out by trying
        self.interval = max(interval, 1.0)  # seconds between checks
        self.limit = max(limit, 1)  # failures in a row that make it unavailable
        self.auth_through = True  # requests without credentials, and those for a token, as well
        self.available = True
        self.failures = 0
        self.next_check = 0.0
        self.latency = Latency()
        self.lost = 0  # hedged requests in a row that another source answered first
        self.slow_until = 0.0
        self.slow_s = SLOW_S


class Endpoints:
    """The sources of one backend, by its *connection*; *clock* gives seconds that only grow.

    *login*: the backend deals with servers that want credentials (401) or redirect.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Callable[[], float] = time.monotonic,
        *,
        login: bool = False,
    ) -> None:
        self._login = login
        self._clock = clock
        self._lock = threading.Lock()
        self._origin = _Source(Route(ORIGIN, 0), "", 1.0, 1)
        self._mirrors = [
            _mirror(mirror, index) for index, mirror in enumerate(connection.mirrors, 1)
        ]
        self._proxy: _Source | None = None
        self._fallback = True
        self._pause_after = 0.0  # seconds without a request after which the proxy is not checked
        if connection.proxy.url:
            self._proxy = _proxy(connection.proxy)
            self._fallback = connection.proxy.fallback
            self._pause_after = float(connection.proxy.check_pause_elapsed)
        self._check_timeout = float(connection.connect_timeout)
        self._hedged = connection.hedged_reads and bool(self._mirrors)
        self._last_request = clock()
        self._budget = HEDGE_BURST
        self._sources = [self._origin, *self._mirrors, *([self._proxy] if self._proxy else [])]

    def routes(self, *, authorized: bool = True, prefetch: bool = False) -> list[Route]:
        """The routes of one read, the first to be tried first; never empty.

        *authorized*: the request carries credentials, or its server wants none. Without them
        mirrors that do not pass authentication through are left out. `BackendError` when the
        proxy is down and nothing may take its place.
        """
        now = self._clock()
        with self._lock:
            self._last_request = now
            if self._proxy is not None:
                return self._proxy_routes(self._proxy, now, prefetch=prefetch)
            usable = [each for each in self._mirrors if authorized or each.auth_through]
            usable.append(self._origin)
            usable.sort(key=lambda each: (not each.available, each.slow_until > now))
            return [each.route for each in usable]

    def succeeded(self, route: Route, size: int, seconds: float) -> None:
        """*route* gave *size* right bytes after *seconds*."""
        with self._lock:
            source = self._sources[route.number]
            source.latency.add(size, seconds)
            source.failures = 0
            source.lost = 0
            if source.slow_until:
                source.slow_until = 0.0
                source.slow_s = SLOW_S
            # Whatever a health check says: it has just answered.
            if source is not self._proxy or not source.ping_url:
                source.available = True

    def failed(self, route: Route) -> bool:
        """*route* gave no answer, or one that cannot be used; true when it is left out from now."""
        with self._lock:
            source = self._sources[route.number]
            if source is self._origin:
                return False  # nothing comes after it
            source.failures += 1
            if not source.available or source.failures < source.limit:
                return False
            source.available = False
            source.next_check = self._clock() + source.interval
            return True

    def is_answer(self, route: Route, status: int) -> bool:
        """Whether a read ends with *status* from *route*, or goes on to the next one.

        What the origin says is the answer. A mirror's word that it has no such object, or does not
        serve it now, is none. For a backend with a login it is one that the object is elsewhere
        (3xx), and that credentials are wanted (401) if the mirror passes authentication through:
        another one is not to say who is sent a password. A proxy passes on what the origin said, up
        to 499; 429 is its own.
        """
        if route.kind == ORIGIN or status < 300:
            return True
        if route.kind == PROXY:
            return not self._fallback or (status < 500 and status != STATUS_TOO_MANY)
        if not self._login:
            return False
        with_login = self._sources[route.number].auth_through
        return status < 400 or (status == STATUS_UNAUTHORIZED and with_login)

    def due_checks(self) -> list[Check]:
        """The health checks to send now; each is due again after its interval.

        A mirror is checked while it is left out. A proxy is checked all the time, first at once,
        but not while nobody has asked for anything for long.
        """
        now = self._clock()
        due = []
        with self._lock:
            for source in self._sources:
                if not source.ping_url or now < source.next_check:
                    continue
                if source is not self._proxy and source.available:
                    continue
                source.next_check = now + source.interval
                if source is self._proxy and now - self._last_request > self._pause_after:
                    continue
                due.append(Check(source.route.number, source.ping_url, self._check_timeout))
        return due

    def seconds_to_check(self) -> float | None:
        """When `due_checks` is to be asked again, from now; None: not before something fails."""
        now = self._clock()
        with self._lock:
            times = [
                each.next_check
                for each in self._sources
                if each.ping_url and (each is self._proxy or not each.available)
            ]
            return max(0.0, min(times) - now) if times else None

    def checked(self, check: Check, status: int | None) -> bool:
        """A check came back with *status* (None: with nothing); true when that changed anything."""
        with self._lock:
            source = self._sources[check.number]
            if source is self._proxy:
                sound = status is not None and 200 <= status < 400
            else:
                sound = status is not None and status < 500
            changed = sound != source.available
            source.available = sound
            if sound:
                source.failures = 0
            return changed

    def hedge_after(self, routes: list[Route], size: int) -> float | None:
        """Seconds to wait for the first of *routes* before the second is asked as well.

        The 95th percentile of the first one's own latencies for such a *size*; that of the second
        while the first is on trial after being slow. None: do not ask twice.
        """
        if not self._hedged or len(routes) < 2:
            return None
        with self._lock:
            self._budget = min(HEDGE_BURST, self._budget + HEDGE_SHARE)
            first, second = (self._sources[route.number] for route in routes[:2])
            if not second.available:
                return None
            if first.slow_until:
                return min(first.latency.p95(size), second.latency.p95(size))
            return first.latency.p95(size)

    def may_hedge(self) -> bool:
        """Whether one more request may be sent twice; counted when it may."""
        with self._lock:
            if self._budget < 1.0:
                return False
            self._budget -= 1.0
            return True

    def lost(self, route: Route) -> None:
        """Another source answered in time what *route* had been asked for first."""
        with self._lock:
            source = self._sources[route.number]
            source.lost += 1
            if source.slow_until:
                source.slow_s = min(source.slow_s * 2, MOST_SLOW_S)
            elif source.lost < LOST_IN_A_ROW:
                return
            source.lost = 0
            source.slow_until = self._clock() + source.slow_s

    def distrust(self, route: Route) -> bool:
        """*route* has given bytes that are wrong; whether others are asked before it from now."""
        with self._lock:
            source = self._sources[route.number]
            if source is self._origin:
                return False
            now = self._clock()
            if source is not self._proxy:
                source.slow_until = now + MOST_SLOW_S
                return True
            if self._fallback:
                source.available = False
                source.next_check = now + source.interval
            return self._fallback

    def names(self) -> list[str]:
        """How every source is called in messages, by its number."""
        return [
            shown_url(each.route.base or each.route.proxy_url) or ORIGIN for each in self._sources
        ]

    def state(self, number: int) -> tuple[str, bool]:
        """The kind of source *number*, and whether it is used now."""
        with self._lock:
            source = self._sources[number]
            return source.route.kind, source.available

    @property
    def has_checks(self) -> bool:
        """Whether there is any source that can be checked."""
        return any(source.ping_url for source in self._sources)

    def _proxy_routes(self, proxy: _Source, now: float, *, prefetch: bool) -> list[Route]:
        headers = P2P_PREFETCH if prefetch else P2P_ON_DEMAND
        origin = self._origin.route._replace(headers=headers)
        through = proxy.route._replace(headers=headers)
        if not proxy.available and not proxy.ping_url and now >= proxy.next_check:
            proxy.next_check = now + proxy.interval  # nobody checks it: this read does
            return [through, origin] if self._fallback else [through]
        if proxy.available:
            return [through, origin] if self._fallback else [through]
        if self._fallback:
            return [origin]
        if proxy.ping_url:
            raise BackendError("the proxy is not healthy and fallback is disabled")
        return [through]


def _mirror(mirror: Mirror, index: int) -> _Source:
    base = origin_of(mirror.host)
    route = Route(MIRROR, index, base=base, headers=mirror.headers)
    source = _Source(
        route,
        mirror.ping_url or f"{base}/v2",
        float(mirror.health_check_interval),
        mirror.failure_limit,
    )
    source.auth_through = mirror.auth_through
    return source


def _proxy(proxy: Proxy) -> _Source:
    route = Route(PROXY, 1, proxy_url=proxy.url, plain=proxy.use_http)
    return _Source(route, proxy.ping_url, float(proxy.check_interval), PROXY_FAILURE_LIMIT)


def origin_of(url: str) -> str:
    """Scheme, host and port of *url*."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"
