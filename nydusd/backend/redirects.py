"""Where a registry has sent us for a blob: the next URL, and the URLs that are good for a while.

A registry redirects to an object store with a URL that is signed for some minutes. It is kept for
each blob, so that the next range goes there directly. Any thread (single dict operations).
"""

from __future__ import annotations

import time
from calendar import timegm
from urllib.parse import parse_qsl, urljoin, urlsplit, urlunsplit

from nydusd.backend.request import shown_url
from nydusd.base.errors import BackendError, FailureKind
from nydusd.base.record import NamedTuple

HOPS_MAX = 5
EARLY_SECONDS = 10.0  # a URL is not used in its last seconds
KEPT_MAX = 4096  # blobs
SECRET_HEADERS = ("authorization", "proxy-authorization", "cookie")
# Names of signed queries in which date and life stand, of AWS, Google and Aliyun.
SIGNED_QUERIES = (
    ("x-amz-date", "x-amz-expires"),
    ("x-goog-date", "x-goog-expires"),
    ("x-oss-date", "x-oss-expires"),
)


def origin_parts(url: str) -> tuple[str, str, int | None]:
    """Scheme, host and port of *url*; `BackendError` when it is none that can be asked."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    scheme, host = parts.scheme.lower(), (parts.hostname or "").lower()
    if scheme not in ("http", "https") or not host:
        raise BackendError(f"{shown_url(url)} is not a URL to be asked", FailureKind.REDIRECT)
    return scheme, host, port or (443 if scheme == "https" else 80)


def next_url(current: str, location: str, scheme: str, host: str) -> str:
    """Where *location*, received from *current*, leads; *scheme* and *host* replace its own.

    Of *host* a port is not used: the port of *location* stays (spec: redirects).
    """
    try:
        parts = urlsplit(urljoin(current, location.strip()))
        port = parts.port
    except ValueError:
        raise BackendError(
            f"{shown_url(current)} redirects to what is no URL", FailureKind.REDIRECT
        ) from None
    netloc = parts.netloc
    if host:
        end = "]" if host.startswith("[") else ":"
        name = host.partition(end)[0] + end.strip(":")
        netloc = f"{name}:{port}" if port else name
    url = urlunsplit((scheme or parts.scheme, netloc, parts.path, parts.query, ""))
    origin_parts(url)
    return url


def expiry_of(url: str, now: float) -> float | None:
    """When the signed *url* ends to be good, in seconds since the epoch; None: it does not say.

    One that has ended already counts as one that does not say: the clocks differ.
    """
    query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    ends: float | None = None
    try:
        for date, life in SIGNED_QUERIES:
            if date in query and life in query:
                start = timegm(time.strptime(query[date], "%Y%m%dT%H%M%SZ"))
                ends = start + float(query[life])
        if ends is None and query.get("expires", "").isdecimal():
            ends = float(query["expires"][:12])
        if ends is None and "se" in query:  # Azure
            ends = float(timegm(time.strptime(query["se"][:19], "%Y-%m-%dT%H:%M:%S")))
    except (ValueError, OverflowError):
        return None
    return ends if ends is not None and ends > now else None


class Target(NamedTuple):
    """Where a blob was found."""

    url: str
    ends: float | None  # seconds since the epoch


class RedirectCache:
    """The last good target of each blob."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}

    def get(self, blob_id: str) -> str | None:
        """The blob's target, unless it is about to end."""
        target = self._targets.get(blob_id)
        if target is None:
            return None
        if target.ends is not None and time.time() >= target.ends - EARLY_SECONDS:
            self.drop(blob_id, target.url)
            return None
        return target.url

    def keep(self, blob_id: str, url: str) -> None:
        """The blob was read from *url*."""
        if len(self._targets) >= KEPT_MAX:
            self._targets.clear()
        self._targets[blob_id] = Target(url, expiry_of(url, time.time()))

    def drop(self, blob_id: str, url: str) -> None:
        """*url* is of no use any more; a newer one stays."""
        target = self._targets.get(blob_id)
        if target is not None and target.url == url:
            self._targets.pop(blob_id, None)
