"""The life of a daemon with a control socket: mount, then listen, then serve until the end.

The socket appears when the mount can be used. What the event loop needs is imported after that: it
takes longer than the start itself, and clients that connect meanwhile wait in the socket's queue.
"""

import logging
from typing import TYPE_CHECKING

from nydusd.api.socket_file import SocketFile
from nydusd.api.tcp_address import listen_tcp
from nydusd.daemon.control import ControlThread
from nydusd.daemon.daemon import Daemon, settle
from nydusd.daemon.process import EndRequest
from nydusd.daemon.service_manager import tell
from nydusd.daemon.settings import Settings, SingletonSettings
from nydusd.daemon.upgrade import Upgrade

if TYPE_CHECKING:
    import socket

    from nydusd.daemon.singleton import AnyDaemon

logger = logging.getLogger("nydusd")

CONTROL_SECONDS = 1.0  # for the job that runs when the end comes


def run(settings: Settings, socket_file: SocketFile) -> int:
    """Serve until a signal, a request to end, or until the mount is gone; the exit status."""
    end = EndRequest()
    end.install()
    metrics_sock = None
    if settings.metrics_address is not None:
        metrics_sock = listen_tcp(settings.metrics_address)
    daemon = Daemon(settings, end)
    daemon.upgrade = Upgrade(daemon)
    if not settings.waits:
        daemon.start()
    return serve_until_end(daemon, end, socket_file, metrics_sock)


def run_singleton(settings: SingletonSettings, socket_file: SocketFile) -> int:
    """Serve blobs until a signal or a request to end; the exit status."""
    from nydusd.daemon.singleton import Singleton

    end = EndRequest()
    end.install()
    daemon = Singleton(settings, end)
    daemon.start()
    return serve_until_end(daemon, end, socket_file)


def serve_until_end(
    daemon: "AnyDaemon",
    end: EndRequest,
    socket_file: SocketFile,
    metrics_sock: "socket.socket | None" = None,
) -> int:
    """Answer the API of *daemon*, which is started, until *end* is asked for; the exit status."""
    control = ControlThread(daemon.mounts.tidy)
    try:
        sock = socket_file.listen()
        logger.info("http server running at %s", daemon.settings.apisock)
        from nydusd.api.service import serve

        control.start()
        settle()
        tell("READY=1")
        serve(daemon, end, control, sock, metrics_sock)
        logger.info("nydusd quits: %s", end.reason)
    finally:
        tell("STOPPING=1")
        socket_file.remove()
        control.stop(CONTROL_SECONDS)
        daemon.stop()
    return 0
