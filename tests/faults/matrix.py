"""The fault matrix: every named fault of a backend against every kind of image.

One cell opens an image whose only backend is a server of ours, and goes through four steps:

1. cold: the fault is there from the first request on, and a file is read;
2. the fault is gone, and the same file is read again, with nothing reopened;
3. warm: the fault is back, and a file is read that is not in the cache;
4. the fault is gone again, and everything is read.

A read ends with the right bytes or with an error, in time; 2 and 4 must be right. `python -m
tests.faults.matrix` prints the table of docs/operations/backends.md.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from nydusd.base.errors import NydusError
from nydusd.cache.pool import BlobPool
from nydusd.cache.span_reader import read_spans
from nydusd.config import model
from tests.disclosure import secret
from tests.faults.images import FaultImage, spans_of
from tests.servers import faults
from tests.servers.loopback import LoopbackServer, Play

TIMEOUT_S = 1  # of one request; the smallest that a configuration can say
RETRIES = 1
# Two tries of two sources, pauses between them, and what a busy machine adds.
DEADLINE_S = 60.0
MARKERS = (secret("url"), secret("header"), secret("mirror"))

SERVED = "served"
EIO = "EIO"


class Fault(NamedTuple):
    """One row: what is played, and how a read under it ends."""

    name: str
    text: str
    play: Play | None = None
    outcome: str = EIO
    mirrored: str = SERVED  # when a mirror has the fault and the origin is sound
    zran: str = ""  # the outcome for that image, where it is another one
    greet: Callable[[socket.socket], bool] | None = None
    stopped: bool = False

    def begin(self, server: LoopbackServer) -> None:
        """From now on *server* has the fault."""
        if self.stopped:
            server.stop()
            return
        if self.play is not None:
            server.script(self.play)
        if self.greet is not None:
            server.healed.clear()
            server.greet = self.greet
            server.cut()

    def end(self, server: LoopbackServer) -> None:
        """*server* is sound again."""
        if self.stopped:
            server.start()
        else:
            server.heal()


def row(play: Callable[..., None], outcome: str = EIO, **more: object) -> Fault:
    """A fault by its function: name and text are those of the function."""
    text = (play.__doc__ or "").strip().partition("\n")[0]
    return Fault(play.__name__, text, play, outcome, **more)  # type: ignore[arg-type]


def status(code: int, what: str, retry_after: str = "", outcome: str = EIO) -> Fault:
    """A row for an error status."""
    name = f"status_{code}" + ("_retry_after" if retry_after else "")
    play = partial(faults.status, code=code, retry_after=retry_after)
    return Fault(name, what, play, outcome)


def _hold(sock: socket.socket, server_healed: threading.Event | None = None) -> bool:
    """Accept, and say nothing."""
    del server_healed
    sock.settimeout(0.05)
    deadline = time.monotonic() + 4 * TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            if not sock.recv(65536):
                return True
        except TimeoutError:
            continue
        except OSError:
            return True
    return True


def _reset_at_once(sock: socket.socket) -> bool:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    return True


def _garbage_first(sock: socket.socket) -> bool:
    sock.sendall(b"\x15\x03\x03\x00\x02\x02\x28" * 20)  # alerts of TLS
    return True


FAULTS = (
    Fault("refused", "Nobody listens.", stopped=True),
    Fault("silent_connection", "Connections are accepted, and nothing comes.", greet=_hold),
    Fault("reset_connection", "Connections are reset when they are made.", greet=_reset_at_once),
    Fault("tls_alerts", "The other side speaks another protocol.", greet=_garbage_first),
    row(faults.delay, SERVED),
    row(faults.stall),
    row(faults.stall_in_headers),
    row(faults.stall_in_body),
    row(faults.trickle),
    row(faults.trickle_headers),
    row(faults.reset),
    row(faults.reset_in_body),
    row(faults.close),
    row(faults.close_in_body),
    row(faults.short_body),
    row(faults.empty_body),
    row(faults.long_body),
    row(faults.endless_body),
    row(faults.corrupt_body),
    row(faults.other_range),
    row(faults.no_content_range, SERVED),
    row(faults.garbled_content_range),
    row(faults.whole_object, SERVED, zran=EIO),  # its ranges begin beyond 4 MiB
    row(faults.error_page),
    row(faults.no_content),
    row(faults.echo_request),
    status(400, "The request is refused as malformed."),
    status(401, "Credentials are wanted."),
    status(403, "Access is forbidden."),
    status(404, "The blob is not there."),
    status(408, "The server has waited for too long."),
    status(416, "The range is refused."),
    status(429, "Too many requests."),
    status(429, "Too many requests, come back in a second.", retry_after="1"),
    status(500, "The server has failed."),
    status(502, "A server behind the server has failed."),
    status(503, "The server is overloaded."),
    status(503, "The server is overloaded, come back in a second.", retry_after="1"),
    status(504, "A server behind the server does not answer."),
    row(faults.redirect_loop),
    row(faults.redirect_growing),
    row(faults.redirect_without_location),
    row(faults.garbage),
    row(faults.garbled_header),
    row(faults.huge_header),
    row(faults.many_headers),
    row(faults.endless_early_answers),
    row(faults.two_lengths),
    row(faults.negative_length),
    row(faults.chunked, SERVED),
    row(faults.broken_chunks),
    row(faults.cut_chunks),
    row(faults.compressed),
    row(faults.multipart),
    row(faults.old_protocol, SERVED),
    row(faults.always_close, SERVED),
)
BY_NAME = {fault.name: fault for fault in FAULTS}


class Result(NamedTuple):
    """What one cell showed."""

    cold: str
    warm: str
    wrong: list[str]  # all that must never be: wrong bytes, no recovery, too late
    messages: list[str]  # of every error


class Cell:
    """One fault, one kind of image; *mirrored*: a mirror has the fault, the origin has not."""

    def __init__(self, fault: Fault, image: FaultImage, folder: Path, *, mirrored: bool) -> None:
        self.fault = fault
        self.image = image
        self.folder = folder
        self.mirrored = mirrored
        self.wrong: list[str] = []
        self.messages: list[str] = []

    def run(self) -> Result:
        """Go through the four steps."""
        objects = {f"/{blob_id}": data for blob_id, data in self.image.blobs.items()}
        with LoopbackServer(objects) as faulty, LoopbackServer(objects) as sound:
            bootstrap = self.image.load()
            cache = model.Cache(
                "blobcache", validate=True, filecache=model.FileCache(str(self.folder))
            )
            # Of its own: connections, pauses and pools of other cells are none of its business.
            device = BlobPool().open_device(bootstrap, self._backend(faulty, sound), cache, 0)
            try:

                def read(path: str) -> str:
                    return self._read(lambda: read_spans(device, spans_of(bootstrap, path)), path)

                first, second = self.image.digests
                self.fault.begin(faulty)
                cold = read(first)
                self.fault.end(faulty)
                self._must_serve(read, (first,), "after the fault")
                self.fault.begin(faulty)
                warm = read(second)
                self.fault.end(faulty)
                self._must_serve(read, (first, second), "after the second fault")
            finally:
                device.close()
        return Result(cold, warm, self.wrong, self.messages)

    def _backend(self, faulty: LoopbackServer, sound: LoopbackServer) -> model.Backend:
        mirror = model.Mirror(
            faulty.url, headers=(("X-Mirror-Secret", MARKERS[2]),), failure_limit=1
        )
        origin = sound if self.mirrored else faulty
        connection = model.Connection(
            timeout=TIMEOUT_S,
            connect_timeout=TIMEOUT_S,
            retry_limit=RETRIES,
            mirrors=(mirror,) if self.mirrored else (),
            headers=(("X-Secret", MARKERS[1]),),
        )
        addr = origin.url.replace("://", f"://user:{MARKERS[0]}@")
        return model.Backend("http-proxy", http_proxy=model.HttpProxy(addr, connection=connection))

    def _read(self, read: Callable[[], bytes], path: str) -> str:
        began = time.monotonic()
        try:
            data = read()
        except (OSError, NydusError) as exc:
            self.messages.append(str(exc))
            outcome = errno.errorcode.get(exc.errno or 0, "no errno")
        else:
            outcome = SERVED
            if hashlib.sha256(data).hexdigest() != self.image.digests[path]:
                self.wrong.append(f"{path}: wrong bytes")
        seconds = time.monotonic() - began
        if seconds > DEADLINE_S:
            self.wrong.append(f"{path}: {outcome} after {seconds:.1f} s")
        return outcome

    def _must_serve(self, read: Callable[[str], str], paths: tuple[str, ...], when: str) -> None:
        for path in paths:
            outcome = read(path)
            if outcome != SERVED:
                self.wrong.append(f"{path} {when}: {outcome}: {self.messages[-1]}")


class LogLines(logging.Handler):
    """Every line that is logged, at any level."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line as a formatter would write it."""
        self.lines.append(logging.Formatter().format(record))


def table() -> str:
    """The rows for the documentation."""
    lines = ["| fault | what happens | a read | with a sound origin behind a faulty mirror |"]
    lines.append("| --- | --- | --- | --- |")
    for fault in FAULTS:
        outcome = fault.outcome + (f"; zran: {fault.zran}" if fault.zran else "")
        lines.append(f"| {fault.name} | {fault.text} | {outcome} | {fault.mirrored} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
