"""A server of blobs in a process of its own, with a chosen round trip and bandwidth.

`python -m perf.remote_server PORT FOLDER DELAY_MS BYTES_PER_SECOND` serves the files of *FOLDER* as
blobs of a registry (`/v2/perf/image/blobs/sha256:NAME`). Each line on standard input is answered
with one of JSON: `reset` counts from zero, `stats` tells the counts, `delay MS` changes the round
trip, `log` tells when each request came and was answered. Ends with its standard input.

Where the kernel has no netem, the server pauses instead: one round trip before each answer, and one
more when a connection is made (of TCP's two, the one that the client waits for).
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.servers.loopback import Exchange, LoopbackServer

PREFIX = "/v2/perf/image/blobs/sha256:"


class TimedServer(LoopbackServer):
    """A server that keeps when it answered what."""

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(objects)
        self.log: list[dict[str, Any]] = []  # appended to by the threads of the connections

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, and note it."""
        came = time.monotonic() - self.delay
        super().handle(exchange)
        request = exchange.request
        self.log.append(
            {
                "came": came,
                "answered": time.monotonic(),
                "connection": request.connection,
                "method": request.method,
                "range": request.range,
            }
        )


def main() -> None:
    """Serve until standard input ends."""
    port, folder, delay_ms, rate = sys.argv[1:]
    objects = {PREFIX + path.name: path.read_bytes() for path in Path(folder).iterdir()}
    server = TimedServer(objects)
    server.port = int(port)
    server.delay = int(delay_ms) / 1e3
    server.rate = float(rate)

    def greet(_sock: object) -> bool:
        server.stopping.wait(server.delay)
        return False

    server.greet = greet
    with server:
        print(json.dumps({"port": server.port}), flush=True)
        for line in sys.stdin:
            words = line.split()
            if words[0] == "log":
                print(json.dumps(server.log), flush=True)
                continue
            if words[0] == "reset":
                server.forget()
            elif words[0] == "delay":
                server.delay = int(words[1]) / 1e3
            counts = {
                "requests": len(server.requests),
                "bytes": server.bytes_sent,
                "connections": server.connections,
            }
            print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
