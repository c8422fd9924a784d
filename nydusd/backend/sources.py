"""Requests by way of a proxy or mirrors: `Endpoints` and `HealthChecks` of one backend at work.

Any thread.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from nydusd.backend.attempt import Attempt
from nydusd.backend.endpoints import Endpoints, Route
from nydusd.backend.health import HealthChecks

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from nydusd.backend.request import Request, Response, Tls
    from nydusd.backend.transfer import Transfer
    from nydusd.config.model import Connection

REMEMBERED_ANSWERS = 256  # more than are under way at a time


class SourcesSender:
    """Sends requests by way of the proxy or the mirrors of a connection.

    With *login* the server may want credentials: until a request carries some, or was answered
    without, it goes past mirrors that do not pass authentication through.
    """

    def __init__(
        self, connection: Connection, transfer: Transfer, tls: Tls, *, login: bool = False
    ) -> None:
        self.endpoints = Endpoints(connection, login=login)
        self._transfer = transfer
        self._health = HealthChecks(self.endpoints, transfer, tls)
        self._open = not login  # credentials are not asked for
        self._proxied = bool(connection.proxy.url)
        # Who has delivered what of late: URL, offset, size, route.
        self._delivered: deque[tuple[str, int, int, Route]] = deque(maxlen=REMEMBERED_ANSWERS)
        self._health.start()

    def perform(self, request: Request) -> Response:
        """The response of the first source that has one; see `Attempt.run`.

        What is for another server (a redirect leads there) has no mirrors.
        """
        if request.unix_socket or (request.redirected and not self._proxied):
            return self._transfer.perform(request)
        known = any(name.lower() == "authorization" for name, _ in request.headers)
        routes = self.endpoints.routes(authorized=known or self._open, prefetch=request.background)

        def make(route: Route, buffer: Buffer | None) -> Request:
            return request._replace(
                url=route.url(request.url),
                headers=(*request.headers, *route.headers),
                buffer=buffer,
                proxy=route.proxy_url,
            )

        attempt = Attempt(
            self._transfer, self.endpoints, make, request.buffer, self._health.left_out
        )
        answer = attempt.run(routes, hedged=not request.background)
        if not known and answer.response.status < 400:
            self._open = True
        if request.offset is not None:
            self._delivered.append(
                (request.url, request.offset, request.wanted_bytes(), answer.route)
            )
        return answer.response

    def distrust(self, url: str, offset: int, size: int) -> bool:
        """Ask who has delivered that last after all others; False when nobody else has it."""
        for known, begin, length, route in reversed(tuple(self._delivered)):
            if known == url and begin < offset + size and offset < begin + length:
                return self.endpoints.distrust(route)
        return False

    def close(self) -> None:
        """End the health checks."""
        self._health.close()
