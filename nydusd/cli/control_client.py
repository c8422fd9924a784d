"""A client of a daemon's control socket: one request, one JSON answer."""

import http.client
import json
import socket
from typing import Any, Final
from urllib.parse import urlencode

TIMEOUT_SECONDS: Final = 60.0


class RequestFailed(Exception):
    """The daemon answered with an error; *error* is its body, decoded where it could be."""

    def __init__(self, status: int, error: object) -> None:
        super().__init__(f"status {status}: {error}")
        self.status = status
        self.error = error


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket; `OSError`."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class ControlClient:
    """Requests to the daemon at the socket *path*."""

    def __init__(self, path: str) -> None:
        self._path = path

    def ask(self, method: str, target: str, body: object = None, **query: str) -> Any:  # noqa: ANN401
        """The decoded answer, None for one without a body; `RequestFailed`, `OSError`."""
        if query:
            target = f"{target}?{urlencode(query)}"
        content = None if body is None else json.dumps(body).encode()
        connection = UnixConnection(self._path)
        try:
            connection.request(method, target, content)
            response = connection.getresponse()
            data = response.read()
        except http.client.HTTPException as exc:
            raise OSError(f"not an HTTP answer: {type(exc).__name__}: {exc}") from exc
        finally:
            connection.close()
        try:
            value = json.loads(data) if data else None
        except ValueError:
            value = data.decode("utf-8", "replace")
        if response.status not in (200, 204):
            raise RequestFailed(response.status, value)
        return value
