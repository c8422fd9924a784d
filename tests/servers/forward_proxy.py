"""A caching forward proxy, as a P2P client has it on each machine.

Takes requests in absolute form, answers ranges from what it has kept or fetches them from the
origin with the client's headers. CONNECT is refused: it would see nothing of what passes.
"""

from __future__ import annotations

import http.client
import threading
from urllib.parse import urlsplit

from tests.servers.loopback import Exchange, LoopbackServer

HOP_BY_HOP = {"connection", "proxy-connection", "proxy-authorization", "keep-alive"}
OWN = {*HOP_BY_HOP, "content-length", "transfer-encoding"}
ORIGIN_TIMEOUT_S = 10


class ForwardProxy(LoopbackServer):
    """`hits` and `misses` count what came from memory and what from an origin.

    *upstream* maps a netloc to another, where an origin is reached under a made-up name.
    """

    def __init__(self, upstream: dict[str, str] | None = None) -> None:
        super().__init__()
        self.upstream = upstream or {}
        self.hits = 0
        self.misses = 0
        self._kept: dict[tuple[str, str], tuple[int, bytes, dict[str, str]]] = {}
        self._kept_lock = threading.Lock()

    def respond(self, exchange: Exchange) -> None:
        """From memory, else from the origin; 502 with the P2P client's mark when that fails."""
        request = exchange.request
        if "://" not in request.target:
            exchange.answer(200 if request.path == "/ping" else 400, b"pong\n")
            return
        key = (request.target, request.headers.get("range", ""))
        with self._kept_lock:
            kept = self._kept.get(key)
            self.hits += kept is not None
            self.misses += kept is None
        if kept is None:
            try:
                kept = self._fetch(exchange)
            except (OSError, http.client.HTTPException) as exc:
                exchange.answer(502, str(exc).encode(), X_Dragonfly_Error_Type="proxy")
                return
            if kept[0] in (200, 206):
                with self._kept_lock:
                    self._kept[key] = kept
        status, body, headers = kept
        exchange.answer(status, body, **headers)

    def _fetch(self, exchange: Exchange) -> tuple[int, bytes, dict[str, str]]:
        request = exchange.request
        parts = urlsplit(request.target)
        netloc = self.upstream.get(parts.netloc, parts.netloc)
        origin = http.client.HTTPConnection(netloc, timeout=ORIGIN_TIMEOUT_S)
        try:
            headers = {
                name: value for name, value in request.headers.items() if name not in HOP_BY_HOP
            }
            origin.request(request.method, parts.path, headers=headers)
            answer = origin.getresponse()
            passed = {
                name.replace("-", "_"): value
                for name, value in answer.headers.items()
                if name.lower() not in OWN
            }
            return answer.status, answer.read(), passed
        finally:
            origin.close()
