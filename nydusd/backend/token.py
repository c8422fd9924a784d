"""The right to read from a registry: passwords, and tokens that are asked for and renewed.

`Credentials` holds what the operator gave, and can be given anew while mounted. `Authorizer` has
the `authorization` header of the next request: it answers challenges, asks the token server, keeps
the token, and renews it in the background shortly before it expires, or before the next request
when it has. No thread of its own: what nobody reads from needs no token. Any thread.

Sources: spec of the registry backend, authentication; distribution: docs/spec/auth/token.
"""

from __future__ import annotations

import json
import logging
import random
import re
import threading
import time
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlencode

from nydusd.backend.challenge import Challenge, wanted_challenge
from nydusd.backend.request import shown_url
from nydusd.backend.retry import retry_after_seconds
from nydusd.base.errors import BackendError, ConfigError, FailureKind
from nydusd.base.record import NamedTuple
from nydusd.config.checks import check_auth

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.backend.request import Request, Response
    from nydusd.backend.transfer import Call

logger = logging.getLogger("nydusd")

CLIENT_ID = "nydus-registry-client"
DEFAULT_LIFE_SECONDS = 600.0
LONGEST_LIFE_SECONDS = 86400.0
RENEW_EARLY_SECONDS = 20.0
RENEW_JITTER_MAX_SECONDS = 300.0  # and at most a tenth of the token's life
RENEW_PAUSE_SECONDS = 5.0  # after a renewal that failed, doubled up to the next line
RENEW_PAUSE_MAX_SECONDS = 600.0
REFUSED_SECONDS = 1.0  # a refusal is believed for so long: readers do not storm the token server
FORBIDDEN_SECONDS = 10.0  # some registries say 403 to an expired token, but not to a new one
TOKEN_BODY_MAX = 1 << 20
SENDABLE = re.compile(r"[!-~]{1,65536}")


class Credentials:
    """User and password of a registry, as base64 of `user:password`; None: anonymous.

    The one place that keeps them; `replace` while mounted is seen by the next request.
    """

    def __init__(self, basic: str | None) -> None:
        self._held = (check_basic(basic), 0)

    def __repr__(self) -> str:
        """Nothing of what it holds."""
        return "<Credentials>"

    @property
    def held(self) -> tuple[str | None, int]:
        """The base64 text, and a number that changes with it."""
        return self._held

    def replace(self, basic: str | None) -> None:
        """Use *basic* from now on; `ConfigError` when it is not base64 of `user:password`."""
        self._held = (check_basic(basic), self._held[1] + 1)


def check_basic(basic: str | None) -> str | None:
    """*basic*, None for an empty one; `ConfigError` (that does not quote it) when it is none."""
    if not basic:
        return None
    if text := check_auth(basic):
        raise ConfigError(text)
    return basic


class TokenRequests(Protocol):
    """Who makes and carries requests to token servers."""

    def token_request(self, url: str, seconds: float, method: str = "GET") -> Request:
        """A request with the headers, time limit and TLS settings of the backend."""

    def perform_direct(self, request: Request) -> Response:
        """Its response, without proxies and mirrors; `BackendError`."""

    def submit_direct(self, request: Request, on_done: Callable[[Call], None]) -> None:
        """The same without waiting."""


class _Token(NamedTuple):
    """A token and how long it is good for."""

    header: str
    expires: float  # monotonic seconds
    renew: float
    challenge: Challenge | None  # None: given by the configuration, cannot be renewed
    made: float


class Authorizer:
    """The `authorization` header for one repository, kept as long as it is accepted."""

    def __init__(
        self, credentials: Credentials, requests: TokenRequests, first_token: str | None
    ) -> None:
        self._credentials = credentials
        self._requests = requests
        # Held while a token is fetched: whoever needs it as well waits for that one. The transfer
        # thread never waits for it.
        self._lock = threading.Lock()
        self._generation = credentials.held[1]
        self._token: _Token | None = None
        if first_token:
            check_token(first_token)
            never = float("inf")
            self._token = _Token(f"Bearer {first_token}", never, never, None, 0.0)
        self._basic = False  # the registry wants the password itself
        self._get_realms: set[str] = set()  # token servers that do not take POST
        self._renewing = False
        self._renew_pause = RENEW_PAUSE_SECONDS
        self._refused: tuple[float, BackendError] | None = None

    def header(self, seconds: float) -> str | None:
        """What the next request carries; asks for a new token (*seconds* at most) when it must."""
        basic, generation = self._credentials.held
        if generation != self._generation:
            self._start_over(generation)
        if self._basic:
            return f"Basic {basic}" if basic else None
        token = self._token
        if token is None:
            return None
        now = time.monotonic()
        if now >= token.expires and token.challenge is not None:
            return self._renew_now(token, token.challenge, seconds)
        if now >= token.renew:
            self._renew_later(token)
        return token.header

    def _start_over(self, generation: int) -> None:
        """Forget what other credentials have earned, but not where tokens come from."""
        with self._lock:
            if self._generation == generation:
                return
            self._generation = generation
            self._refused = None
            token = self._token
            if token is not None and token.challenge is not None:
                self._token = token._replace(expires=0.0, renew=0.0)
            else:
                self._token = None

    def answer(self, used: str | None, response: Response, seconds: float) -> str | None:
        """The header to try after a 401 (or 403) *response* to *used*; None: there is none.

        `BackendError` when the token server fails or refuses.
        """
        self._acquire(seconds)
        try:
            current = self._token.header if self._token is not None else None
            if current is not None and current != used:
                return current  # somebody else has renewed it
            if self._token is not None and self._is_fresh(self._token, response.status):
                return None  # another one would fare no better
            known = self._token.challenge if self._token is not None else None
            challenge = wanted_challenge(response.headers.get("www-authenticate", ""))
            if response.status == 403:
                challenge = challenge or known
            elif challenge is None:
                self._token = None
            if challenge is None:
                return None
            if challenge.scheme == "basic":
                basic = self._credentials.held[0]
                self._basic = basic is not None
                header = f"Basic {basic}" if basic else None
                return header if header != used else None
            return self._fetch(challenge, seconds).header
        finally:
            self._lock.release()

    def _is_fresh(self, token: _Token, status: int) -> bool:
        """Whether *token* is so new that its refusal with *status* is meant."""
        limit = FORBIDDEN_SECONDS if status == 403 else REFUSED_SECONDS
        return time.monotonic() - token.made < limit

    def _acquire(self, seconds: float) -> None:
        if not self._lock.acquire(timeout=seconds or -1):
            raise BackendError("the token server does not answer", FailureKind.TIMEOUT)

    def _renew_now(self, old: _Token, challenge: Challenge, seconds: float) -> str:
        self._acquire(seconds)
        try:
            if self._token is not None and self._token is not old:
                return self._token.header
            return self._fetch(challenge, seconds).header
        finally:
            self._lock.release()

    def _fetch(self, challenge: Challenge, seconds: float) -> _Token:
        """A new token, kept; POST and, where that does not work, GET. The lock is held."""
        if self._refused is not None:
            until, refusal = self._refused
            if time.monotonic() < until:
                raise refusal
        try:
            token = self._ask_both_ways(challenge, time.monotonic() + seconds if seconds else None)
        except BackendError as exc:
            if exc.kind is FailureKind.AUTH:
                self._refused = (time.monotonic() + REFUSED_SECONDS, exc)
            raise
        self._token, self._basic, self._refused = token, False, None
        self._renew_pause = RENEW_PAUSE_SECONDS
        return token

    def _ask_both_ways(self, challenge: Challenge, until: float | None) -> _Token:
        realm = challenge.parameters["realm"]
        if realm not in self._get_realms:
            try:
                return self._ask(challenge, "POST", until)
            except BackendError as exc:
                if exc.kind not in (FailureKind.STATUS, FailureKind.AUTH):
                    raise  # nobody there, for GET neither
        token = self._ask(challenge, "GET", until)
        self._get_realms.add(realm)
        return token

    def _ask(self, challenge: Challenge, method: str, until: float | None) -> _Token:
        seconds = max(0.05, until - time.monotonic()) if until is not None else 0.0
        request = self._request(challenge, method, seconds)
        response = self._requests.perform_direct(request)
        if response.status == 200:
            return read_token(challenge, response)
        where = f"the token server {shown_url(request.url)}"
        if response.status in (401, 403):
            raise BackendError(
                f"{where} refuses the credentials (status {response.status})",
                FailureKind.AUTH,
                status=response.status,
            )
        raise BackendError(
            f"{where} answers with status {response.status}",
            FailureKind.STATUS,
            status=response.status,
            retry_after=retry_after_seconds(response.headers.get("retry-after", "")),
        )

    def _request(self, challenge: Challenge, method: str, seconds: float) -> Request:
        realm = challenge.parameters["realm"]
        fields = {
            name: challenge.parameters[name]
            for name in ("service", "scope")
            if challenge.parameters.get(name)
        }
        form = urlencode({**fields, "client_id": CLIENT_ID})
        if method == "GET":
            realm += ("&" if "?" in realm else "?") + form
        if not realm.lower().startswith(("http://", "https://")):
            raise BackendError(
                f"the registry names {shown_url(realm)} as its token server", FailureKind.AUTH
            )
        request = self._requests.token_request(realm, seconds, method)
        headers = request.headers
        basic = self._credentials.held[0]
        if basic:
            headers = (*headers, ("authorization", f"Basic {basic}"))
        if method == "POST":
            headers = (*headers, ("content-type", "application/x-www-form-urlencoded"))
            request = request._replace(body=form.encode())
        return request._replace(headers=headers, size=TOKEN_BODY_MAX)

    # --- renewal in the background

    def _renew_later(self, token: _Token) -> None:
        """Ask for a successor of *token*, which is still good; nobody waits."""
        if self._renewing or token.challenge is None or not self._lock.acquire(blocking=False):
            return
        try:
            if self._renewing or self._token is not token:
                return
            self._renewing = True
        finally:
            self._lock.release()
        method = "GET" if token.challenge.parameters["realm"] in self._get_realms else "POST"
        challenge = token.challenge
        try:
            request = self._request(challenge, method, RENEW_EARLY_SECONDS)
            self._requests.submit_direct(request, lambda call: self._renewed(call, token))
        except BackendError as exc:
            self._renewal_failed(token, exc)

    def _renewed(self, call: Call, old: _Token) -> None:
        """The reply is there; on the transfer thread."""
        assert old.challenge is not None
        try:
            token = read_token(old.challenge, call.result())
        except BackendError as exc:
            self._renewal_failed(old, exc)
            return
        # When the lock is held somebody fetches another token: that one will do.
        if self._lock.acquire(blocking=False):
            if self._token is old:
                self._token = token
                self._renew_pause = RENEW_PAUSE_SECONDS
            self._lock.release()
        self._renewing = False

    def _renewal_failed(self, old: _Token, error: BackendError) -> None:
        logger.info("the registry's token could not be renewed yet: %s", error)
        if self._lock.acquire(blocking=False):
            if self._token is old:
                self._token = old._replace(renew=time.monotonic() + self._renew_pause)
                self._renew_pause = min(self._renew_pause * 2, RENEW_PAUSE_MAX_SECONDS)
            self._lock.release()
        self._renewing = False


def check_token(token: object) -> str:
    """*token* when it can stand in a header; `BackendError`, which does not quote it."""
    if isinstance(token, str) and SENDABLE.fullmatch(token):
        return token
    raise BackendError("the token is none that can be sent", FailureKind.AUTH)


def read_token(challenge: Challenge, response: Response) -> _Token:
    """The token in a token server's *response*; `BackendError`."""
    realm = shown_url(challenge.parameters["realm"])
    try:
        reply = json.loads(response.body) if response.status == 200 else None
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict):
        raise BackendError(
            f"the token server {realm} answers with status {response.status} and no token",
            FailureKind.STATUS,
            status=response.status if response.status != 200 else 502,
        )
    text = check_token(reply.get("token") or reply.get("access_token"))
    life = reply.get("expires_in")
    if isinstance(life, bool) or not isinstance(life, int | float) or not life > 0:
        life = DEFAULT_LIFE_SECONDS
    life = min(float(life), LONGEST_LIFE_SECONDS)
    jitter = random.uniform(0.0, min(life / 10, RENEW_JITTER_MAX_SECONDS))
    early = min(RENEW_EARLY_SECONDS, life / 4) + jitter
    now = time.monotonic()
    return _Token(f"Bearer {text}", now + life, now + life - early, challenge, now)
