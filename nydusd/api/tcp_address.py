"""The TCP address where counters can be had: how it is written, and a socket that listens there."""

import socket

from nydusd.base.errors import ConfigError

BACKLOG = 16


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `HOST:PORT` or `[HOST]:PORT`; `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        colon = ""
    if not (colon and host and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise ConfigError(f"--metrics-address {text!a}: HOST:PORT is needed")
    return host, int(port)


def listen_tcp(text: str) -> socket.socket:
    """A non-blocking socket that listens at `HOST:PORT`; `ConfigError`."""
    host, port = split_address(text)
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.create_server(address[:2], family=family, backlog=BACKLOG)
    except OSError as exc:
        raise ConfigError(f"--metrics-address {text}: {exc.strerror or exc}") from exc
    sock.setblocking(False)
    return sock
