"""Who carries a request to a server: straight, or by way of mirrors and proxies.

A backend over HTTP hands each request to its `Sender`, made from the connection's configuration by
`sender_for`. Any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from nydusd.backend.request import Tls

if TYPE_CHECKING:
    from nydusd.backend.request import Request, Response
    from nydusd.backend.transfer import Transfer
    from nydusd.config.model import Connection


class Sender(Protocol):
    """Who carries a request to one of the places that may answer it."""

    def perform(self, request: Request) -> Response:
        """The response, of any status; `BackendError` when nobody answered.

        After an error nobody writes to the request's buffer any more; the first
        `BackendError.received` bytes of it are good.
        """

    def distrust(self, url: str, offset: int, size: int) -> bool:
        """Hear that these bytes at *url* came corrupt; whether another source will be asked."""

    def close(self) -> None:
        """End what runs in the background."""


class DirectSender:
    """Sends requests to where their URL says."""

    def __init__(self, transfer: Transfer) -> None:
        self._transfer = transfer

    def perform(self, request: Request) -> Response:
        """The response of the server itself."""
        return self._transfer.perform(request)

    def distrust(self, url: str, offset: int, size: int) -> bool:
        """There is no other source."""
        del url, offset, size
        return False

    def close(self) -> None:
        """Nothing runs."""


def sender_for(connection: Connection, transfer: Transfer, *, login: bool = False) -> Sender:
    """The sender that *connection* asks for; *login*: its server may want credentials."""
    if connection.proxy.url or connection.mirrors:
        from nydusd.backend.sources import SourcesSender  # few configurations need it

        return SourcesSender(connection, transfer, tls_of(connection), login=login)
    return DirectSender(transfer)


def tls_of(connection: Connection) -> Tls:
    """How *connection* checks its servers, and what it shows them."""
    return Tls(
        verify=not connection.skip_verify,
        ca_files=connection.ca_cert_files,
        certificate_file=connection.client_cert_file,
        key_file=connection.client_key_file,
    )
