"""The one place that speaks to the network: a thread that drives all transfers with libcurl.

`perform` waits for a response, `submit` does not; any thread may call them. Connections are kept
and shared by all requests of the process, HTTP/2 is used where TLS offers it. A response of any
status is a result; what is no response, or not the bytes that were asked for, is a
`BackendError` whose kind says what happened.

The thread starts with the first request. It waits in epoll without the GIL; libcurl hands bodies to
`Reply`, which copies them once, into the buffer they are for. Nobody writes to that buffer after
`perform` has returned or `cancel` was called.
"""

from __future__ import annotations

import atexit
import logging
import os
import select
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import pycurl

from nydusd.backend.handles import HandleStore, explain
from nydusd.backend.reply import Reply
from nydusd.backend.request import Request, Response, shown_url
from nydusd.base.errors import BackendError, FailureKind
from nydusd.base.tracing import tracer

if TYPE_CHECKING:
    from collections.abc import Callable

logger = logging.getLogger("nydusd")

HOST_CONNECTIONS = 64  # at a time to one host: as many as there are fetching threads
KEPT_CONNECTIONS = 128
GRACE_SECONDS = 2.0  # after a request's own deadline, before its waiter stops believing in libcurl
CLOSE_SECONDS = 2.0
PAUSE_SECONDS = 0.1  # before the thread starts over
IDLE_SECONDS = 60.0  # longest sleep of the thread; everything that matters wakes it


class Call:
    """A request under way."""

    __slots__ = ("_finished", "_on_done", "_outcome", "_transfer", "curl", "error", "reply",
                 "request", "response", "started")  # fmt: skip

    def __init__(
        self, transfer: Transfer, request: Request, on_done: Callable[[Call], None] | None
    ) -> None:
        self.request = request
        self.reply = Reply(
            request.buffer,
            request.offset or 0,
            request.size,
            request.offset is not None,
            request.skip_max,
        )
        self.response: Response | None = None  # set once, with `error` None
        self.error: BackendError | None = None  # set once
        self.curl: pycurl.Curl | None = None  # the transfer thread's
        self.started = time.monotonic()
        self._transfer = transfer
        self._on_done = on_done
        self._outcome = threading.Lock()  # taken, and kept, by who sets the outcome
        self._finished = threading.Lock()  # held until the outcome is there
        self._finished.acquire()

    @property
    def done(self) -> bool:
        """Whether `response` or `error` is there."""
        return self.response is not None or self.error is not None

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is done, or *seconds*; whether it is done."""
        if not self.done and self._finished.acquire(timeout=-1 if seconds is None else seconds):
            self._finished.release()
        return self.done

    def result(self) -> Response:
        """The response, once there is one; `BackendError` for what went wrong."""
        limit = self.request.timeout
        if not self.wait(limit + GRACE_SECONDS if limit else None):
            self._give_up(FailureKind.TIMEOUT, f"no answer within {limit:g} s")
        if self.error is not None:
            raise self.error
        assert self.response is not None
        return self.response

    def cancel(self) -> None:
        """End it: the buffer is the caller's again at once. Nothing happens if it is done."""
        self._give_up(FailureKind.CANCELLED, "cancelled")

    def _give_up(self, kind: FailureKind, reason: str) -> None:
        self.reply.detach()
        received = self.reply.received if self.request.buffer is not None else 0
        if not self.done:
            self.finish(None, BackendError(f"{self.request!r}: {reason}", kind, received=received))
            self._transfer.forget(self)

    def finish(self, response: Response | None, error: BackendError | None) -> None:
        """Set the outcome, the first one only, and wake who waits."""
        if not self._outcome.acquire(blocking=False):
            return  # the other one of cancel and the transfer thread was first
        self.reply.detach()
        self.response, self.error = response, error
        self._finished.release()
        if self._on_done is not None:
            try:
                self._on_done(self)
            except Exception:
                logger.exception("after %r", self.request)


class Transfer:
    """Carries requests, many at a time, on a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # start, stop
        self._thread: threading.Thread | None = None
        self._stopping = False
        # Any thread appends, the transfer thread takes; deques need no lock.
        self._new: deque[Call] = deque()
        self._forgotten: deque[Call] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        # The transfer thread's own:
        self._calls: dict[pycurl.Curl, Call] = {}
        self._handles = HandleStore()
        self._timer: float | None = None  # when libcurl wants to be called, monotonic seconds
        self._epoll: select.epoll | None = None

    def perform(self, request: Request) -> Response:
        """The response to *request*, whatever its status; `BackendError` when there is none."""
        return self.submit(request).result()

    def submit(self, request: Request, on_done: Callable[[Call], None] | None = None) -> Call:
        """Begin *request*; *on_done* is called on the transfer thread and must not wait."""
        if (taker := tracer()) is not None:
            from nydusd.backend.traced import traced  # of no use when nobody takes spans

            on_done = traced(taker, request, on_done)
        call = Call(self, request, on_done)
        with self._lock:
            if self._stopping:
                call.finish(None, closed_error())
                return call
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="transfer", daemon=True)
                self._thread.start()
            self._new.append(call)
            os.eventfd_write(self._wake, 1)
        return call

    def forget(self, call: Call) -> None:
        """Take *call* out of libcurl; its outcome is set already."""
        with self._lock:
            if self._thread is not None and not self._stopping:
                self._forgotten.append(call)
                os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        """End everything under way with an error, and the thread; requests after it are refused."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
            thread = self._thread
            os.eventfd_write(self._wake, 1)
        if thread is None:
            os.close(self._wake)
        elif thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS)

    # --- the transfer thread

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._serve()
            except Exception:
                # What is under way has been answered with an error; the next request is served.
                logger.exception("the transfer thread starts over")
                time.sleep(PAUSE_SECONDS)
        with self._lock:
            while self._new:
                self._new.popleft().finish(None, closed_error())
            os.close(self._wake)

    def _serve(self) -> None:
        """Carry requests until the engine is closed."""
        with select.epoll() as self._epoll:
            self._epoll.register(self._wake, select.EPOLLIN)
            self._timer = None
            multi = pycurl.CurlMulti()
            multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch_socket)
            multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
            multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, HOST_CONNECTIONS)
            multi.setopt(pycurl.M_MAXCONNECTS, KEPT_CONNECTIONS)
            try:
                while not self._stopping:
                    self._turn(multi, self._epoll)
            finally:
                self._end(multi)

    def _turn(self, multi: pycurl.CurlMulti, epoll: select.epoll) -> None:
        """Wait for sockets, the timer or a wake-up, and let libcurl work on them."""
        timeout = IDLE_SECONDS
        if self._timer is not None:
            timeout = max(0.0, min(timeout, self._timer - time.monotonic()))
        for fd, events in epoll.poll(timeout):
            if fd == self._wake:
                os.eventfd_read(fd)
                continue
            action = 0
            if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
                action |= pycurl.CSELECT_IN
            if events & (select.EPOLLOUT | select.EPOLLERR):
                action |= pycurl.CSELECT_OUT
            multi.socket_action(fd, action)
        while self._forgotten:
            self._drop(multi, self._forgotten.popleft())
        while self._new:
            call = self._new.popleft()
            try:
                self._begin(multi, call)
            except Exception as exc:
                call.finish(None, BackendError(f"{call.request!r}: {type(exc).__name__}"))
                raise
        if self._timer is not None and self._timer <= time.monotonic():
            self._timer = None
            multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        self._collect(multi)

    def _begin(self, multi: pycurl.CurlMulti, call: Call) -> None:
        if call.done:
            return
        try:
            call.curl = self._handles.take(call.request, call.reply)
        except (pycurl.error, ValueError, TypeError, OSError) as exc:
            # The text of such an error may quote a header.
            reason = exc.strerror if isinstance(exc, OSError) else type(exc).__name__
            text = f"{call.request!r} cannot be made: {reason}"
            call.finish(None, BackendError(text, FailureKind.CONFIG))
            return
        self._calls[call.curl] = call
        multi.add_handle(call.curl)

    def _drop(self, multi: pycurl.CurlMulti, call: Call, code: int = 0) -> None:
        curl = call.curl
        if curl is not None and self._calls.pop(curl, None) is not None:
            multi.remove_handle(curl)
            self._handles.give_back(curl, call.request, code)

    def _collect(self, multi: pycurl.CurlMulti) -> None:
        """Set the outcome of every transfer that libcurl has ended."""
        left = 1
        while left:
            left, good, bad = multi.info_read()
            ended = [(curl, 0, "") for curl in good]
            ended += bad
            for curl, code, text in ended:
                call = self._calls.get(curl)
                if call is None:
                    continue
                first_byte = curl.getinfo(pycurl.STARTTRANSFER_TIME)
                self._drop(multi, call, code)
                call.finish(*outcome(call, code, text, first_byte))

    def _end(self, multi: pycurl.CurlMulti) -> None:
        """Answer what is under way, and close what libcurl holds."""
        for curl, call in list(self._calls.items()):
            multi.remove_handle(curl)
            curl.close()
            call.finish(None, closed_error())
        self._calls.clear()
        self._handles.close()
        multi.close()

    # --- called by libcurl, on the transfer thread

    def _watch_socket(self, what: int, fd: int, multi: object, data: object) -> None:
        assert self._epoll is not None
        events = 0
        if what in (pycurl.POLL_IN, pycurl.POLL_INOUT):
            events |= select.EPOLLIN
        if what in (pycurl.POLL_OUT, pycurl.POLL_INOUT):
            events |= select.EPOLLOUT
        try:
            if what == pycurl.POLL_REMOVE:
                self._epoll.unregister(fd)
                return
            try:
                self._epoll.modify(fd, events)
            except FileNotFoundError:
                self._epoll.register(fd, events)
        except OSError:
            # Closed before we were told: epoll has forgotten it by itself.
            return

    def _set_timer(self, milliseconds: int) -> None:
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000


def closed_error() -> BackendError:
    """What everybody gets when the engine ends."""
    return BackendError("the backend is closed", FailureKind.CANCELLED)


def outcome(
    call: Call, code: int, text: str, first_byte: float
) -> tuple[Response | None, BackendError | None]:
    """The response, or the error, of a transfer that libcurl ended with *code*."""
    request, reply = call.request, call.reply
    cut = code == pycurl.E_WRITE_ERROR  # by `take_body`
    # A refusal stands, however its text ends: docker-registry announces a whole blob with 416.
    if code and reply.status < 300 and not (cut and reply.complete):
        if cut and reply.refusal:
            return None, refused(request, reply.refusal)
        kind, reason = explain(code, text)
        received = reply.received if request.buffer is not None else 0
        if reply.status and kind is FailureKind.BROKEN and received:
            kind = FailureKind.SHORT
            reason = f"{received} of {request.wanted_bytes()} bytes came: {reason}"
        return None, BackendError(f"{request!r}: {reason}", kind, received=received)
    if request.method != "HEAD" and 200 <= reply.status < 300:
        reply.finish()
        if reply.refusal:
            return None, refused(request, reply.refusal)
        if request.buffer is not None and reply.received < reply.size:
            text = f"{request!r}: {reply.received} of {reply.size} bytes came"
            return None, BackendError(text, FailureKind.SHORT, received=reply.received)
    seconds = time.monotonic() - call.started
    response = Response(
        reply.status, reply.headers, reply.received, reply.body, seconds, first_byte
    )
    return response, None


def refused(request: Request, refusal: str) -> BackendError:
    """The error for a body that is not what was asked for."""
    kind = FailureKind.LONG if refusal.startswith("more bytes") else FailureKind.RANGE
    return BackendError(f"{request!r}: {refusal}", kind)


# --- one engine a process: connections and the limits on them are common to all backends

_lock = threading.Lock()
_shared: Transfer | None = None
_users = 0


def acquire_transfer() -> Transfer:
    """The engine of this process, made on first use; give it back with `release_transfer`."""
    global _shared, _users
    with _lock:
        if _shared is None:
            _shared = Transfer()
        _users += 1
        return _shared


def release_transfer() -> None:
    """Give the engine back; the last one to do so ends it."""
    global _shared, _users
    with _lock:
        _users -= 1
        last = _shared if _users == 0 else None
        if last is not None:
            _shared = None
    if last is not None:
        last.close()


@atexit.register
def _close_at_exit() -> None:
    if _shared is not None:
        _shared.close()


__all__ = ["Call", "Request", "Response", "Transfer", "acquire_transfer", "release_transfer",
           "shown_url"]  # fmt: skip
