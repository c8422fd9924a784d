"""What systemd is told, and what it hands over: its protocols, without its library.

`sd_notify(3)`: a datagram of `NAME=VALUE` lines to the socket named in the environment.
`sd_listen_fds(3)`: listening sockets from descriptor 3 on. Without that environment nothing is
done. Called by the main thread.
"""

import logging
import os
import socket
from typing import Final

from nydusd.base.errors import ConfigError

logger = logging.getLogger("nydusd")

FIRST_DESCRIPTOR: Final = 3
MOST_DESCRIPTORS: Final = 64


def tell(state: str) -> None:
    """Tell systemd *state* (`READY=1`, ...), if it started us and wants to know."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if path[:1] not in ("/", "@"):
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        sock.setblocking(False)  # a manager that does not read must not hold us up
        try:
            sock.sendto(state.encode(), address)
        except OSError as exc:
            logger.warning("cannot tell systemd %s: %s", state.partition("\n")[0], exc)


def watchdog_seconds() -> float | None:
    """How often systemd wants a sign of life, halved as it advises; None = not at all."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = os.environ.get("WATCHDOG_USEC", "")
    return int(text) / 2e6 if text.isascii() and text.isdecimal() and int(text) > 0 else None


def take_listening_socket(path: str) -> socket.socket | None:
    """The socket that systemd listens on for us at *path*; None when it has handed over none.

    `ConfigError` when it has, and for another path: requests to it would never be answered.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdecimal():
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # not for what we may start
    names = []
    for fd in range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + min(int(count), MOST_DESCRIPTORS)):
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
        if sock.getsockname() == path and is_listening_stream(sock):
            sock.setblocking(False)
            return sock
        names.append(str(sock.getsockname()))
        sock.detach()
    if not names:
        return None
    raise ConfigError(f"--apisock {path}: systemd listens at {', '.join(names)} for this service")


def is_listening_stream(sock: socket.socket) -> bool:
    """Whether *sock* takes connections."""
    return (
        sock.type == socket.SOCK_STREAM
        and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) != 0
    )
