"""The life of a daemon with a control socket: mount, then listen, then serve until the end.

The socket appears when the mount can be used. What the event loop needs is imported when nobody
asks any more: it takes as long as the start itself (`api.early`).
"""

import gc
import logging
import socket
import time
from typing import TYPE_CHECKING

from nydusd.api.context import Context
from nydusd.api.early import QUIET_SECONDS, EarlyLoop, EarlyTransport, Listener
from nydusd.api.server import Connection, ConnectionLimit
from nydusd.api.service import Service
from nydusd.api.socket_file import SocketFile
from nydusd.api.tcp_address import listen_tcp
from nydusd.daemon.control import ControlThread
from nydusd.daemon.daemon import Daemon, settle
from nydusd.daemon.process import EndRequest
from nydusd.daemon.service_manager import tell, watchdog_seconds
from nydusd.daemon.settings import Settings, SingletonSettings
from nydusd.daemon.state import State
from nydusd.daemon.upgrade import Upgrade

if TYPE_CHECKING:
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
    metrics_sock: socket.socket | None = None,
) -> int:
    """Answer the API of *daemon*, which is started, until *end* is asked for; the exit status."""
    control = ControlThread(daemon.mounts.tidy)
    try:
        sock = socket_file.listen()
        logger.info("http server running at %s", daemon.settings.apisock)
        control.start()
        settle()
        tell("READY=1")
        serve(daemon, end, control, sock, metrics_sock)
        logger.info("nydusd quits: %s", end.reason)
    finally:
        tell("STOPPING=1")
        socket_file.remove()
        if not daemon.has_left:
            control.stop(CONTROL_SECONDS)
            daemon.stop()
    return 0


def serve(
    daemon: "AnyDaemon",
    end: EndRequest,
    control: ControlThread,
    sock: socket.socket,
    metrics_sock: socket.socket | None,
) -> None:
    """Answer requests on *sock*, and for counters on *metrics_sock*, until *end* is asked for."""
    service = Service(Context(daemon), control)
    limit, metrics_limit = ConnectionLimit(), ConnectionLimit()
    listeners: list[Listener] = [(sock, lambda: Connection(service.answer, limit))]
    if metrics_sock is not None:
        listeners.append((metrics_sock, lambda: Connection(service.answer_metrics, metrics_limit)))
    try:
        moved = serve_early(daemon, service, end, listeners)
        if not end.reason:
            gc.disable()  # what is imported stays
            from nydusd.api import event_loop

            settle()
            event_loop.serve(service, end, listeners, moved)
    finally:
        for each, _ in listeners:
            each.close()


def serve_early(
    daemon: "AnyDaemon", service: Service, end: EndRequest, listeners: list[Listener]
) -> list[EarlyTransport]:
    """Serve until the daemon has come to rest; the connections. After an *end* none is left."""
    loop = EarlyLoop(listeners, end.fileno(), end.drain)
    service.loop = loop
    alive_seconds = watchdog_seconds()
    rests_since: float | None = None
    while not end.reason:
        if daemon.machine.state is not State.RUNNING or not service.is_idle:
            rests_since = None
        elif rests_since is None:
            rests_since = time.monotonic()
        elif loop.is_quiet(rests_since):
            return loop.leave()
        if alive_seconds is not None:
            tell("WATCHDOG=1")
        waits = (alive_seconds, None if rests_since is None else QUIET_SECONDS)
        loop.turn(min((each for each in waits if each is not None), default=None))
    deadline = time.monotonic() + CONTROL_SECONDS
    while not service.is_idle and (left := deadline - time.monotonic()) > 0:
        loop.turn(left)
    loop.close()
    return []
