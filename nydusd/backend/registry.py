"""Blobs of an OCI distribution registry: login, redirects to an object store, HTTP for HTTPS.

One attempt may take several requests: the blob's URL, a challenge, a token, the URL again, a
redirect's target. They share the attempt's time. Source of the rules: spec of the registry
backend. Any thread.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import quote

from nydusd.backend.handles import NO_TLS_THERE
from nydusd.backend.http import HttpBackend, status_error
from nydusd.backend.redirects import (
    HOPS_MAX,
    SECRET_HEADERS,
    RedirectCache,
    next_url,
    origin_parts,
)
from nydusd.backend.request import shown_url
from nydusd.backend.token import Authorizer, Credentials
from nydusd.base.errors import BackendError, FailureKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.backend.request import Request, Response
    from nydusd.backend.transfer import Call
    from nydusd.config.model import Registry

logger = logging.getLogger("nydusd")

LOGIN_ROUNDS = 3  # no header or an old one, a fresh one, and one more when that was just replaced
FIRST_WAIT_SECONDS = 60.0  # for the first request of a backend without a time limit
GONE_STATUS = {401, 403, 404, 410}  # of a redirect's target: the registry knows a better one


class RegistryBackend(HttpBackend):
    """Blobs of the repository that *config* names; `ConfigError` for credentials that are none."""

    login = True

    def __init__(self, config: Registry) -> None:
        self.credentials = Credentials(config.auth)
        self._config = config
        self._scheme = "http" if config.scheme == "http" else "https"
        self._repo = quote(config.repo.strip("/"), safe="/")
        self._redirects = RedirectCache()
        self._authorizer = Authorizer(self.credentials, self, config.registry_token)
        # The first request runs alone, so that one login serves all that come with it. A registry
        # in the clear that nobody has credentials for is not expected to want a login: there its
        # round trip is spared those that come with it.
        self._first = threading.Lock()
        self._ready = self._scheme == "http" and not (config.auth or config.registry_token)
        if ":" in config.blob_redirected_host.rpartition("]")[2]:
            logger.warning("blob_redirected_host: its port is not used, that of the redirect stays")
        super().__init__(config.connection)

    def url(self, blob_id: str) -> str:
        """The blob's URL (OCI distribution: pulling blobs)."""
        host, name = self._config.host, quote(blob_id, safe="")
        return f"{self._scheme}://{host}/v2/{self._repo}/blobs/sha256:{name}"

    def change_setting(self, name: str, value: str) -> bool:
        """Take on other credentials (`registry_auth`, base64; empty: anonymous)."""
        if name != "registry_auth":
            return super().change_setting(name, value)
        self.credentials.replace(value)
        return True

    # --- for Authorizer

    def token_request(self, url: str, seconds: float, method: str = "GET") -> Request:
        """A request to a token server."""
        return self.request(url, seconds, method)

    def perform_direct(self, request: Request) -> Response:
        """Straight to where the URL says."""
        return self.transfer.perform(request)

    def submit_direct(self, request: Request, on_done: Callable[[Call], None]) -> None:
        """The same without waiting."""
        self.transfer.submit(request, on_done)

    # --- one attempt

    def exchange(self, request: Request, blob_id: str) -> Response:
        """The response to *request* after login and redirects."""
        until = time.monotonic() + request.timeout if request.timeout else None
        if self._ready:
            return self._exchange(request, blob_id, until)
        if not self._first.acquire(timeout=request.timeout or FIRST_WAIT_SECONDS):
            raise BackendError(f"{request!r}: the first request hangs", FailureKind.TIMEOUT)
        try:
            if not self._ready:
                response = self._exchange(request, blob_id, until)
                self._ready = response.status < 400
                return response
        finally:
            self._first.release()
        return self._exchange(request, blob_id, until)

    def _exchange(self, request: Request, blob_id: str, until: float | None) -> Response:
        target = self._redirects.get(blob_id) if request.method == "GET" else None
        if target is not None:
            response = self._ask_target(request, blob_id, target, until)
            if response is not None:
                return response
        response = self._ask_registry(request, until)
        return self._follow(request, response, blob_id, until)

    def _ask_target(
        self, request: Request, blob_id: str, target: str, until: float | None
    ) -> Response | None:
        """The response of a redirect's *target* that was good before; None: it has expired."""
        try:
            response = self.sender.perform(limited(elsewhere(request, target), until))
        except BackendError:
            self._redirects.drop(blob_id, target)
            raise
        if response.status >= 300:
            self._redirects.drop(blob_id, target)
        if response.status in GONE_STATUS or 300 <= response.status < 400:
            logger.info("The redirected link has expired: %s, will retry read", shown_url(target))
            return None
        return response

    def _follow(
        self, request: Request, response: Response, blob_id: str, until: float | None
    ) -> Response:
        """The response at the end of the redirects that begin with *response*."""
        home = origin_parts(request.url)
        url = request.url
        seen = {url}
        while 300 <= response.status < 400 and "location" in response.headers:
            url = next_url(
                url,
                response.headers["location"],
                self._config.blob_url_scheme,
                self._config.blob_redirected_host,
            )
            if url in seen or len(seen) > HOPS_MAX:
                what = "in a circle" if url in seen else f"more than {HOPS_MAX} times"
                raise BackendError(f"{request!r}: redirected {what}", FailureKind.REDIRECT)
            seen.add(url)
            if origin_parts(url) == home:
                response = self._ask_registry(request._replace(url=url), until)
            else:
                response = self.sender.perform(limited(elsewhere(request, url), until))
        if url != request.url and origin_parts(url) != home:
            if response.status >= 400 and request.method == "GET":
                # Not the registry's word: its login has nothing to do with this refusal.
                raise status_error(elsewhere(request, url), response)
            if request.method == "GET":
                self._redirects.keep(blob_id, url)
        return response

    def _ask_registry(self, request: Request, until: float | None) -> Response:
        """The response of the registry itself, logged in if it wants that."""
        request, header, response = self._first_answer(request, until)
        for _ in range(LOGIN_ROUNDS - 1):
            if response.status != 401 and not (response.status == 403 and header):
                break
            again = self._authorizer.answer(header, response, seconds_to(until))
            if again is None and response.status == 401 and header and header[:6] != "Basic ":
                again = ""  # a challenge comes to those who have nothing
            if again is None or again == header:
                break
            header = again
            response = self.sender.perform(limited(with_header(request, header), until))
        if response.status == 401:
            who = "the credentials" if header else "requests without credentials"
            raise BackendError(
                f"{request!r}: the registry refuses {who} (status 401)",
                FailureKind.AUTH,
                status=401,
            )
        return response

    def _first_answer(
        self, request: Request, until: float | None
    ) -> tuple[Request, str | None, Response]:
        """Request, `authorization` header and response of a login's first round."""
        header = self._authorizer.header(seconds_to(until))
        sent = limited(with_header(request, header), until)
        try:
            return request, header, self.sender.perform(sent)
        except BackendError as exc:
            if not self._may_be_plain(request, exc):
                raise
            plain = request._replace(url="http" + request.url.removeprefix("https"))
            try:
                response = self.sender.perform(limited(with_header(plain, header), until))
            except BackendError:
                raise exc from None
            logger.warning("fallback to http due to tls connection error: %s", exc)
            self._scheme = "http"
            return plain, header, response

    def _may_be_plain(self, request: Request, error: BackendError) -> bool:
        """Whether the other side seems to speak HTTP without TLS, and that may be used."""
        if not self.connection.skip_verify or not request.url.startswith("https:"):
            return False
        return error.kind is FailureKind.UNREACHABLE or (
            error.kind is FailureKind.TLS and NO_TLS_THERE in str(error)
        )


def seconds_to(until: float | None) -> float:
    """Seconds to the moment *until*, 0 for no limit."""
    return max(0.05, until - time.monotonic()) if until is not None else 0.0


def limited(request: Request, until: float | None) -> Request:
    """*request* with the rest of its attempt's time."""
    return request._replace(timeout=seconds_to(until))


def with_header(request: Request, header: str | None) -> Request:
    """*request* with that `authorization`, if any."""
    if not header:
        return request
    return request._replace(headers=(*request.headers, ("authorization", header)))


def elsewhere(request: Request, url: str) -> Request:
    """*request* for another host's *url*, without what is meant for the registry alone."""
    headers = tuple(item for item in request.headers if item[0].lower() not in SECRET_HEADERS)
    tls = request.tls._replace(certificate_file="", key_file="")
    return request._replace(url=url, headers=headers, tls=tls, redirected=True)
