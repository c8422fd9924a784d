"""A client of the control socket, as the clients of a daemon are: HTTP over a unix socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests.disclosure import search
from tests.system.daemon import v1_config
from tests.system.images import Image

TIMEOUT_S = 60
WAIT_S = 60


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection to a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("unix", timeout=TIMEOUT_S)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = connect(self.path)


def connect(path: Path) -> socket.socket:
    """A connection to the socket at *path*, for bytes of one's own."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT_S)
    try:
        sock.connect(str(path))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """What an error says, after a look at the rest of it."""
        error = self.json
        assert set(error) == {"code", "message"}
        assert error["code"] == "UNDEFINED"
        return error["message"]


def ask(path: Path, method: str, target: str, body: Any = None, **query: str) -> Reply:
    """The answer to one request on a connection of its own; a *body* that is not bytes is JSON."""
    if query:
        target += "?" + "&".join(f"{name}={quote(value, '')}" for name, value in query.items())
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    connection = UnixConnection(path)
    try:
        connection.request(method, target, body)
        reply = connection.getresponse()
        answer = Reply(reply.status, dict(reply.headers), reply.read())
    finally:
        connection.close()
    search.look(f"reply to {method} {target}", repr(answer.headers).encode() + answer.body)
    return answer


def wait_for(path: Path, present: bool = True) -> None:
    """Wait until the file *path* is there, or gone."""
    deadline = time.monotonic() + WAIT_S
    while os.path.lexists(path) != present:
        assert time.monotonic() < deadline, f"{path} does not {'appear' if present else 'go'}"
        time.sleep(0.005)


def await_rest(pid: int, path: Path) -> None:
    """Wait until a daemon has loaded what it lives on: its event loop comes after its start."""
    deadline = time.monotonic() + WAIT_S
    while "/uvloop/" not in Path(f"/proc/{pid}/maps").read_text():
        assert time.monotonic() < deadline, "the event loop does not come"
        time.sleep(0.02)
    ask(path, "GET", "/api/v1/daemon")  # answered by it


def mount_body(image: Image, cache: Path, **settings: Any) -> dict[str, Any]:
    """The body of a mount request for *image*."""
    cache.mkdir(exist_ok=True)
    config = v1_config(image.blobs, cache, **settings)
    return {"fs_type": "rafs", "source": str(image.bootstrap), "config": json.dumps(config)}
