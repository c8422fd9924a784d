"""Blobs behind plain HTTP: `ADDR/PATH/BLOB_ID`, or one blob at the other end of a unix socket.

Source of the rules: spec of the http-proxy backend. Over a unix socket neither path nor blob id is
sent: the request is always for `/`, so one socket serves one blob.
"""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from nydusd.backend.http import HttpBackend
from nydusd.base.errors import ConfigError
from nydusd.config.model import mask_url

if TYPE_CHECKING:
    from nydusd.backend.request import Request
    from nydusd.config.model import HttpProxy


class HttpProxyBackend(HttpBackend):
    """Blobs at *config*'s address; `ConfigError` when that is neither a URL nor a unix socket."""

    def __init__(self, config: HttpProxy) -> None:
        self._socket = ""
        self._base = ""
        if config.addr.lower().startswith(("http://", "https://")):
            path = config.path.strip("/")
            self._base = config.addr.rstrip("/") + (f"/{path}" if path else "")
        elif is_socket(config.addr):
            self._socket = config.addr
        else:
            raise ConfigError(
                f"backend http-proxy: addr {mask_url(config.addr)!r} is neither a URL (http://, "
                "https://) nor an existing unix socket"
            )
        super().__init__(config.connection)

    def url(self, blob_id: str) -> str:
        """The blob's URL; over a unix socket always the same."""
        return "http://localhost/" if self._socket else f"{self._base}/{quote(blob_id, safe='')}"

    def request(self, url: str, seconds: float, method: str = "GET") -> Request:
        """As of any HTTP backend, through the socket if it is one."""
        request = super().request(url, seconds, method)
        return request._replace(unix_socket=self._socket) if self._socket else request


def is_socket(path: str) -> bool:
    """Whether *path* is a unix socket."""
    try:
        return stat.S_ISSOCK(Path(path).stat().st_mode)
    except (OSError, ValueError):
        return False
