"""Requests to their handlers, and the thread each one runs on."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Protocol

from nydusd.api.context import Context
from nydusd.api.errors import NO_ROUTE, error_response
from nydusd.api.http import Request, Response
from nydusd.api.routes import METRICS_PATH, Route, failed, find_route
from nydusd.api.server import Answer, Pending
from nydusd.daemon.control import ControlThread, Job

logger = logging.getLogger("nydusd")


class Loop(Protocol):
    """Where answers are given."""

    def call_soon_threadsafe(
        self, callback: Callable[[Response], None], response: Response, /
    ) -> object:
        """Have *callback* called with *response* in the loop's thread; from any thread."""


class Service:
    """Answers requests about *context*; jobs go to *control*, answers come back in `loop`.

    The loop may be exchanged while `is_idle`: nothing is on its way to the old one then.
    """

    def __init__(self, context: Context, control: ControlThread) -> None:
        self._context = context
        self._control = control
        self._looks: ControlThread | None = None
        self._jobs: set[Pending] = set()  # what has been begun and not been answered
        self._told_idle: list[Callable[[], None]] = []
        self.loop: Loop | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no answer is due."""
        return not self._jobs

    def when_idle(self, tell: Callable[[], None]) -> None:
        """Have *tell* called once no answer is due, at once if so; in the loop's thread."""
        if self.is_idle:
            tell()
        else:
            self._told_idle.append(tell)

    def answer(self, request: Request) -> Answer:
        """The answer to *request*, or one that comes."""
        route = find_route(request)
        if isinstance(route, Response):
            return route
        if route.on_control:
            return self._on_thread(self._control, route, request)
        if route.in_thread:
            return self._on_thread(self._looking(), route, request)
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

    def _looking(self) -> ControlThread:
        """The thread for what takes long and changes nothing; started when it is first needed."""
        if self._looks is None:
            self._looks = ControlThread(lambda: False, name="looks")
            self._looks.start()
        return self._looks

    def _on_thread(self, thread: ControlThread, route: Route, request: Request) -> Pending:
        pending = Pending()
        self._jobs.add(pending)

        def give(response: Response) -> None:
            self._jobs.discard(pending)
            pending.set(response)
            while self._told_idle and self.is_idle:
                self._told_idle.pop()()

        def done(result: Response, exc: BaseException | None) -> None:
            response = result if exc is None else self._failed(route, request, exc)
            assert self.loop is not None
            # The loop may have ended while the job ran: then nobody waits any more.
            with contextlib.suppress(RuntimeError, OSError):
                self.loop.call_soon_threadsafe(give, response)

        thread.submit(Job(lambda: route.handler(self._context, request), done))
        return pending
