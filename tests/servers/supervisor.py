"""A supervisor as the snapshotter has one: keeps a daemon's state and session, gives them back.

Listens on a unix socket anew for each transfer. `receive` and `give` each serve one connection in
a thread and are told what to play: what a wrong or hostile supervisor does is a function that gets
the connection. Also a program: `python -m tests.servers.supervisor SOCKET FILE` keeps the state of
one transfer in FILE and prints what came.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

WAIT_S = 60
PIECE = 1 << 18

Play = Callable[[socket.socket], None]


class Supervisor:
    """What one daemon has handed over; closes its descriptor when it is closed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = b""
        self.fd = -1

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the session: with the daemon gone too, the connection ends."""
        self._hold(-1)
        self.path.unlink(missing_ok=True)

    def _hold(self, fd: int) -> None:
        if self.fd >= 0:
            os.close(self.fd)
        self.fd = fd

    def play(self, part: Play) -> Future[None]:
        """Listen now; have *part* done with the first connection, in a thread, then close it."""
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.settimeout(WAIT_S)
        listener.bind(str(self.path))
        listener.listen(1)
        done: Future[None] = Future()

        def run() -> None:
            try:
                with listener:
                    connection, _ = listener.accept()
                with connection:
                    connection.settimeout(WAIT_S)
                    part(connection)
            except BaseException as exc:
                done.set_exception(exc)
            else:
                done.set_result(None)

        threading.Thread(target=run, daemon=True).start()
        return done

    def receive(self) -> Future[None]:
        """Keep what the next connection brings."""

        def part(connection: socket.socket) -> None:
            data, fds, _, _ = socket.recv_fds(connection, PIECE, 16)
            while piece := connection.recv(PIECE):
                data += piece
            if not fds:
                raise ValueError(f"{len(data)} bytes came without a descriptor")
            for extra in fds[1:]:
                os.close(extra)
            self._hold(fds[0])
            self.state = data

        return self.play(part)

    def give(self) -> Future[None]:
        """Hand out what is kept to the next connection."""

        def part(connection: socket.socket) -> None:
            sent = socket.send_fds(connection, [self.state], [self.fd])
            connection.sendall(self.state[sent:])

        return self.play(part)


def main() -> None:
    path, kept = (Path(word) for word in sys.argv[1:3])
    with Supervisor(path) as supervisor:
        supervisor.receive().result(WAIT_S)
        kept.write_bytes(supervisor.state)
        link = Path(f"/proc/self/fd/{supervisor.fd}").readlink()
        print(f"{len(supervisor.state)} bytes, descriptor of {link}")


if __name__ == "__main__":
    main()
