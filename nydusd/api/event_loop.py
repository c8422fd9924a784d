"""The loop that a control socket lives on: uvloop, without TLS.

Importing this module imports asyncio and uvloop: it is done when there is time (`api.early`).
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from nydusd.api.no_tls import without_tls
from nydusd.daemon.service_manager import tell, watchdog_seconds

with without_tls():
    import asyncio

    import uvloop

if TYPE_CHECKING:
    from nydusd.api.early import EarlyTransport, Listener
    from nydusd.api.server import Connection
    from nydusd.api.service import Service
    from nydusd.daemon.process import EndRequest

logger = logging.getLogger("nydusd")

ANSWER_SECONDS = 1.0  # for the jobs that run when the end comes


def keep_alive(loop: asyncio.AbstractEventLoop) -> None:
    """Give systemd its signs of life from *loop*: a loop that hangs gives none."""
    seconds = watchdog_seconds()
    if seconds is not None:
        tell("WATCHDOG=1")
        loop.call_later(seconds, keep_alive, loop)


async def finish(service: Service) -> None:
    """Stop the loop once the answer to the job that runs is on its way."""
    is_idle = asyncio.Event()
    service.when_idle(is_idle.set)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(is_idle.wait(), ANSWER_SECONDS)
    await asyncio.sleep(0)
    asyncio.get_running_loop().stop()


def make_protocol(make: Callable[[], Connection]) -> Callable[[], asyncio.BaseProtocol]:
    """*make* as uvloop takes it."""
    return cast("Callable[[], asyncio.BaseProtocol]", make)


async def go_on(loop: asyncio.AbstractEventLoop, early: EarlyTransport) -> None:
    """Serve in *loop* the connection that *early* served."""
    transport, _ = await loop.connect_accepted_socket(
        make_protocol(lambda: early.connection), early.sock
    )
    transport.write(bytes(early.unsent))


async def listen(
    loop: asyncio.AbstractEventLoop, listeners: list[Listener], moved: list[EarlyTransport]
) -> list[asyncio.AbstractServer]:
    """Serve *listeners*, and go on with the connections *moved*."""
    for early in moved:
        await go_on(loop, early)
    servers: list[asyncio.AbstractServer] = []
    for sock, make in listeners:
        if sock.family == socket.AF_UNIX:
            server = await loop.create_unix_server(make_protocol(make), sock=sock)
        else:
            server = await loop.create_server(make_protocol(make), sock=sock)
        servers.append(server)
    return servers


def serve(
    service: Service, end: EndRequest, listeners: list[Listener], moved: list[EarlyTransport]
) -> None:
    """Answer requests on *listeners* and the connections *moved* until *end* is asked for."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    service.loop = loop
    ends: list[asyncio.Task[None]] = []

    def look_for_end() -> None:
        end.drain()
        if end.reason:
            ends.append(loop.create_task(finish(service)))

    loop.add_reader(end.fileno(), look_for_end)
    keep_alive(loop)
    try:
        # Kept: uvloop closes the socket of a server that nobody holds.
        servers = loop.run_until_complete(listen(loop, listeners, moved))
        if not end.reason:
            loop.run_forever()
        for server in servers:
            server.close()
    finally:
        loop.remove_reader(end.fileno())
        loop.close()
