"""A span for each HTTP request of a read that is traced; no query and no credentials in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import urlsplit

from nydusd.backend.request import shown_url
from nydusd.base.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.backend.request import Request, Response
    from nydusd.base.spans import Attributes, Tracer


class Ended(Protocol):
    """A request that is done."""

    response: Response | None
    error: BackendError | None


AnyEnded = TypeVar("AnyEnded", bound=Ended)


def traced(
    tracer: Tracer, request: Request, on_done: Callable[[AnyEnded], None] | None
) -> Callable[[AnyEnded], None] | None:
    """*on_done* of *request*, which ends the request's span first; on the thread that asks."""
    span = tracer.begin_child(request.method, request_attributes(request))
    if span is None:
        return on_done

    def done(call: AnyEnded) -> None:
        response, error = call.response, call.error
        found: Attributes = {}
        if response is not None:
            found["http.response.status_code"] = response.status
            found["nydusd.received"] = response.received or len(response.body)
        failed = response is not None and response.status >= 400
        word = error_word(error) if error is not None else "status" if failed else ""
        span.end(word, found)
        if on_done is not None:
            on_done(call)

    return done


def request_attributes(request: Request) -> Attributes:
    """What is told of *request*; names are those of OpenTelemetry's conventions for HTTP."""
    url = shown_url(request.url)
    attributes: Attributes = {"http.request.method": request.method, "url.full": url}
    try:
        parts = urlsplit(url)
        attributes["server.address"] = parts.hostname or request.unix_socket
        attributes["server.port"] = parts.port or (80 if parts.scheme == "http" else 443)
    except ValueError:
        pass
    if request.proxy:
        attributes["nydusd.proxy"] = shown_url(request.proxy)
    if request.offset is not None:
        attributes["nydusd.offset"] = request.offset
        attributes["nydusd.size"] = request.wanted_bytes()
    return attributes


def error_word(error: BaseException) -> str:
    """One word for *error*."""
    return error.kind.value if isinstance(error, BackendError) else type(error).__name__
