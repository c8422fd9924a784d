"""What every backend over HTTP has in common: reading a range until it is there or time is up.

A backend says where a blob is (`url`), what proves that we may have it (`prepare`, or the whole
`exchange` where that takes several requests), and through whom it asks (`Sender`: directly, or by
way of proxies and mirrors). What a failed attempt has delivered is kept, the next one asks for the
rest. Any thread.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TYPE_CHECKING

from nydusd.backend.interface import BlobBackend, BlobReader
from nydusd.backend.localfs import check_blob_id
from nydusd.backend.request import Request, Response
from nydusd.backend.retry import RetryPolicy, retry_after_seconds
from nydusd.backend.senders import sender_for, tls_of
from nydusd.backend.transfer import acquire_transfer, release_transfer
from nydusd.base.errors import BackendError, FailureKind
from nydusd.base.version import VERSION
from nydusd.config.model import mask_url

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from nydusd.config.model import Connection

logger = logging.getLogger("nydusd")

USER_AGENT = f"nydusd/{VERSION}"
# Of a 200 to a range request: reading so much for nothing is better than failing.
SKIP_MAX_BYTES = 4 << 20
# After these a GET would say the same.
NO_ANSWER_STATUS = {404, 408, 410, 425, 429}
# The word for an error in the replies of registries (JSON) and object stores (XML); the text
# around it may quote what we sent.
ERROR_CODE = re.compile(rb'"code"\s*:\s*"([A-Z_]{1,40})"|<Code>([A-Za-z]{1,40})</Code>')


def status_error(request: Request, response: Response) -> BackendError:
    """The error for a *response* that is not the bytes; it quotes no more than a code."""
    word = ERROR_CODE.search(response.body)
    code = f" ({(word[1] or word[2]).decode()})" if word else ""
    return BackendError(
        f"{request!r}: status {response.status}{code}",
        FailureKind.STATUS,
        status=response.status,
        retry_after=retry_after_seconds(response.headers.get("retry-after", "")),
    )


def described(connection: Connection) -> str:
    """*connection* in the words of the reference's log, which other programs look for."""
    proxy = connection.proxy
    parts = (
        f"proxy: ProxyConfig {{ url: {quoted(proxy.url)}, ping_url: {quoted(proxy.ping_url)}, "
        f"fallback: {proxy.fallback}, check_interval: {proxy.check_interval}, "
        f"use_http: {proxy.use_http}, check_pause_elapsed: {proxy.check_pause_elapsed} }}",
        f"mirrors: [{', '.join(quoted(mirror.host) for mirror in connection.mirrors)}]",
        f"skip_verify: {connection.skip_verify}",
        f"timeout: {connection.timeout}",
        f"connect_timeout: {connection.connect_timeout}",
        f"retry_limit: {connection.retry_limit}",
        f"ca_cert_files: [{', '.join(quoted(file) for file in connection.ca_cert_files)}]",
    )
    text = ", ".join(parts).replace("True", "true").replace("False", "false")
    return f"ConnectionConfig {{ {text} }}"


def quoted(text: str) -> str:
    """*text* in double quotes; a password in it is masked."""
    return f'"{mask_url(text)}"'


class HttpBackend(BlobBackend):
    """A backend over HTTP; subclasses say where blobs are and how a request proves its right."""

    login = False  # whether the server may ask for credentials that come from elsewhere

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.tls = tls_of(connection)
        self.headers = (("user-agent", USER_AGENT), *connection.headers)
        logger.info("backend config: %s", described(connection))
        self.retry = RetryPolicy(connection)
        self.transfer = acquire_transfer()
        self.sender = sender_for(connection, self.transfer, login=self.login)
        self._closed = False

    def url(self, blob_id: str) -> str:
        """Where the blob is."""
        raise NotImplementedError

    def prepare(self, request: Request) -> Request:
        """*request* with what proves our right to it; called for each attempt."""
        return request

    def exchange(self, request: Request, blob_id: str) -> Response:
        """One attempt: the response to *request* for a blob, of any status."""
        del blob_id
        return self.sender.perform(self.prepare(request))

    def request(self, url: str, seconds: float, method: str = "GET") -> Request:
        """A request with all that the configuration says of every request."""
        return Request(
            url,
            method,
            headers=self.headers,
            timeout=seconds,
            connect_timeout=float(self.connection.connect_timeout),
            tls=self.tls,
            skip_max=SKIP_MAX_BYTES,
        )

    def reader(self, blob_id: str) -> HttpReader:
        """A reader for *blob_id*; nothing is asked yet."""
        check_blob_id(blob_id)
        return HttpReader(self, blob_id)

    def close(self) -> None:
        """End pauses and background work; requests under way end by themselves."""
        if self._closed:
            return
        self._closed = True
        self.retry.close()
        self.sender.close()
        release_transfer()


class HttpReader(BlobReader):
    """One blob of an HTTP backend."""

    counts_attempts = True

    def __init__(self, backend: HttpBackend, blob_id: str) -> None:
        self._backend = backend
        self._blob_id = blob_id
        self._size: int | None = None

    def size(self) -> int:
        """Bytes of the blob, asked for once."""
        if self._size is None:
            attempts = self._backend.retry.attempts()
            while self._size is None:
                try:
                    attempts.wait_to_start()
                    self._size = self._ask_size(attempts.seconds)
                except BackendError as exc:
                    attempts.fail(exc)
        return self._size

    def _ask_size(self, seconds: float) -> int:
        backend = self._backend
        request = backend.request(backend.url(self._blob_id), seconds, "HEAD")
        response = backend.exchange(request, self._blob_id)
        length = response.headers.get("content-length", "")
        if response.status == 200 and length.isdecimal() and len(length) < 20:
            return int(length)
        if response.status >= 500 or response.status in NO_ANSWER_STATUS:
            raise status_error(request, response)
        # A server that has no HEAD, or signed URLs that are for GET alone: one byte tells as well.
        request = backend.request(backend.url(self._blob_id), seconds)._replace(offset=0, size=1)
        response = backend.exchange(request, self._blob_id)
        _, _, total = response.headers.get("content-range", "").rpartition("/")
        if response.status == 206 and total.isdecimal() and len(total) < 20:
            return int(total)
        if response.status != 206:
            raise status_error(request, response)
        raise BackendError(f"{request!r}: the reply does not tell the size", FailureKind.RANGE)

    def distrust(self, offset: int, size: int) -> bool:
        """Tell the sender, who may know another source."""
        return self._backend.sender.distrust(self._backend.url(self._blob_id), offset, size)

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """Fill *buffer* with the bytes at *offset*; *background*: nobody waits for them."""
        rest = memoryview(buffer).cast("B")
        attempts = self._backend.retry.attempts(background=background)
        while rest:
            try:
                attempts.wait_to_start()
                self._read_once(rest, offset, attempts.seconds, background)
                rest = rest[:0]
            except BackendError as exc:
                rest = rest[exc.received :]
                offset += exc.received
                if rest:
                    attempts.fail(exc)

    def _read_once(self, buffer: memoryview, offset: int, seconds: float, background: bool) -> None:
        began, failed = time.monotonic(), True
        try:
            self._try_to_read(buffer, offset, seconds, background)
            failed = False
        finally:
            if self.on_attempt is not None:
                self.on_attempt(len(buffer), time.monotonic() - began, failed)

    def _try_to_read(
        self, buffer: memoryview, offset: int, seconds: float, background: bool
    ) -> None:
        backend = self._backend
        request = backend.request(backend.url(self._blob_id), seconds)._replace(
            buffer=buffer, offset=offset, background=background
        )
        response = backend.exchange(request, self._blob_id)
        if not 200 <= response.status < 300:
            raise status_error(request, response)
        if response.received != len(buffer):
            raise BackendError(
                f"{request!r}: {response.received} bytes came",
                FailureKind.SHORT,
                received=response.received,
            )

    def stream(self, offset: int) -> Iterator[Buffer]:
        """The bytes from *offset* on, in long ranges that are asked for ahead."""
        from nydusd.backend.read_ahead import read_ahead  # few mounts ask for it

        return read_ahead(self.read_into, offset, self.size())

    def close(self) -> None:
        """Nothing is held."""
