"""A port for a server that is stopped and started again, or that is another program."""

from __future__ import annotations

import contextlib
import random
import socket

# Below what Linux gives to connections that go out (ip_local_port_range begins at 32768): one of
# those may have any port from there on that nobody listens on right now.
FIRST, LAST = 20000, 32000


def free_port() -> int:
    """A port of 127.0.0.1 that nobody has, and that no outgoing connection will get."""
    for _ in range(1000):
        port = random.SystemRandom().randrange(FIRST, LAST)
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
