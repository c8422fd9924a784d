"""Requests to their handlers, and the thread each one runs on; the daemon's event loop.

`serve` is the main thread's work from the moment the mount is up until the process ends.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import uvloop

from nydusd.api.context import Context
from nydusd.api.errors import NO_ROUTE, error_response
from nydusd.api.http import Request, Response
from nydusd.api.routes import METRICS_PATH, Route, failed, find_route
from nydusd.api.server import Answer, Connection, ConnectionLimit
from nydusd.daemon.control import ControlThread, Job
from nydusd.daemon.service_manager import tell, watchdog_seconds

if TYPE_CHECKING:
    import socket

    from nydusd.daemon.process import EndRequest
    from nydusd.daemon.singleton import AnyDaemon

logger = logging.getLogger("nydusd")

ANSWER_SECONDS = 1.0  # for the job that runs when the end comes


class Service:
    """Answers requests about *context*; jobs go to *control*, answers come back in *loop*."""

    def __init__(
        self, context: Context, control: ControlThread, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._context = context
        self._control = control
        self._loop = loop
        self._jobs: set[asyncio.Future[Response]] = set()

    def answer(self, request: Request) -> Answer:
        """The answer to *request*, or a future of it."""
        route = find_route(request)
        if isinstance(route, Response):
            return route
        if route.on_control:
            return self._on_control(route, request)
        if route.in_thread:
            return self._loop.run_in_executor(None, self._run, route, request)
        return self._run(route, request)

    def answer_metrics(self, request: Request) -> Answer:
        """The answer to *request* where there are counters and nothing else."""
        if request.path != METRICS_PATH:
            return error_response(*NO_ROUTE)
        return self.answer(request)

    def _run(self, route: Route, request: Request) -> Response:
        try:
            return route.handler(self._context, request)
        except Exception as exc:
            return self._failed(route, request, exc)

    def _failed(self, route: Route, request: Request, exc: BaseException) -> Response:
        response = failed(route, exc)
        logger.info("%s %s: %d %s", request.method, request.path, response.status, exc)
        return response

    def _on_control(self, route: Route, request: Request) -> asyncio.Future[Response]:
        future: asyncio.Future[Response] = self._loop.create_future()
        self._jobs.add(future)
        future.add_done_callback(self._jobs.discard)

        def done(result: Response | None, exc: BaseException | None) -> None:
            response = self._failed(route, request, exc) if exc is not None else result
            # The loop may have ended while the job ran: then nobody waits any more.
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._tell, future, response)

        self._control.submit(Job(lambda: route.handler(self._context, request), done))
        return future

    async def finish(self) -> None:
        """Stop the loop once the answer to the job that runs is on its way."""
        if self._jobs:
            await asyncio.wait(self._jobs, timeout=ANSWER_SECONDS)
        await asyncio.sleep(0)
        self._loop.stop()

    @staticmethod
    def _tell(future: asyncio.Future[Response], response: Response | None) -> None:
        if response is not None and not future.done():
            future.set_result(response)


def keep_alive(loop: asyncio.AbstractEventLoop) -> None:
    """Give systemd its signs of life from *loop*: a loop that hangs gives none."""
    seconds = watchdog_seconds()
    if seconds is not None:
        tell("WATCHDOG=1")
        loop.call_later(seconds, keep_alive, loop)


def serve(
    daemon: AnyDaemon,
    end: EndRequest,
    control: ControlThread,
    sock: socket.socket,
    metrics_sock: socket.socket | None = None,
) -> None:
    """Answer requests on *sock*, and for counters on *metrics_sock*, until *end* is asked for."""
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    service = Service(Context(daemon), control, loop)
    limit, metrics_limit = ConnectionLimit(), ConnectionLimit()
    ends: list[asyncio.Task[None]] = []

    def look_for_end() -> None:
        end.drain()
        if end.reason:
            ends.append(loop.create_task(service.finish()))

    async def listen() -> list[asyncio.AbstractServer]:
        servers = [
            await loop.create_unix_server(lambda: Connection(service.answer, limit), sock=sock)
        ]
        if metrics_sock is not None:
            servers.append(
                await loop.create_server(
                    lambda: Connection(service.answer_metrics, metrics_limit), sock=metrics_sock
                )
            )
        return servers

    loop.add_reader(end.fileno(), look_for_end)
    keep_alive(loop)
    try:
        # Kept: uvloop closes the socket of a server that nobody holds.
        servers = loop.run_until_complete(listen())
        if not end.reason:
            loop.run_forever()
        for server in servers:
            server.close()
    finally:
        loop.remove_reader(end.fileno())
        loop.close()
        for each in (sock, metrics_sock):
            if each is not None:
                each.close()
