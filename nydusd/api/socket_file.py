"""The file of the control socket: who has it, making it, taking it away.

A socket file that nobody listens on is left by a daemon that died and is replaced; one that is
served is not. It belongs to its owner alone: 0600 from the moment it can be seen.
"""

import errno
import os
import socket
import stat
from pathlib import Path
from typing import Final

from nydusd.base.errors import ConfigError

BACKLOG: Final = 128
MODE: Final = 0o600
CONNECT_SECONDS: Final = 1.0
PATH_BYTES: Final = 107  # of a unix address, without the NUL


def is_served(path: str) -> bool:
    """Whether somebody listens on the socket at *path*; false for no socket at all."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
        probe.settimeout(CONNECT_SECONDS)
        try:
            probe.connect(path)
        except TimeoutError:  # its queue is full: somebody is there
            return True
        except OSError as exc:
            return exc.errno == errno.EAGAIN
        return True


def identity_of(info: os.stat_result) -> tuple[int, int, int]:
    """What tells one socket file from the next at its path, which may get the same inode."""
    return info.st_dev, info.st_ino, info.st_mtime_ns


class SocketFile:
    """A listening socket at *path*; `ConfigError` or `OSError` when it cannot be.

    One that somebody else has made and *listens* on for us is taken as it is, and its file stays.
    """

    def __init__(self, path: str, listens: socket.socket | None = None) -> None:
        self._path = Path(path)
        self._identity: tuple[int, int, int] | None = None
        self._sock = listens
        if listens is None:
            self.check()

    def check(self) -> None:
        """Refuse a path that is served, a file of another kind, or longer than clients can say."""
        if len(os.fsencode(self._path)) > PATH_BYTES:
            raise ConfigError(f"--apisock {self._path}: too long, {PATH_BYTES} bytes at most")
        try:
            info = self._path.lstat()
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(info.st_mode) and not (
            stat.S_ISREG(info.st_mode) and info.st_size == 0
        ):
            raise ConfigError(f"--apisock {self._path}: exists, and is not a socket")
        if is_served(str(self._path)):
            raise ConfigError(f"--apisock {self._path}: another process listens there")

    def listen(self) -> socket.socket:
        """The listening socket, non-blocking; what was left at the path is gone.

        The same one when it listens already. Closed by the caller, or by `remove`.
        """
        if self._sock is not None:
            return self._sock
        self.check()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            os.fchmod(sock.fileno(), MODE)  # the file gets its mode from the socket
            self._bind_and_listen(sock)
            sock.setblocking(False)
            info = self._path.lstat()
        except OSError:
            sock.close()
            raise
        self._identity = identity_of(info)
        self._sock = sock
        return sock

    def _bind_and_listen(self, sock: socket.socket) -> None:
        """Listen under another name first: a client that sees the file connects at once."""
        folder = os.open(self._path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        name = f".nydusd-{os.getpid()}"
        try:
            sock.bind(f"/proc/self/fd/{folder}/{name}")  # as short as an address has to be
            try:
                sock.listen(BACKLOG)
                os.rename(name, self._path.name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError:
                os.unlink(name, dir_fd=folder)
                raise
        finally:
            os.close(folder)

    def remove(self) -> None:
        """Listen no more and take the file away, if it is still ours."""
        if self._sock is not None:
            self._sock.close()
            self._sock = None
        try:
            if self._identity == identity_of(self._path.lstat()):
                self._path.unlink()
        except OSError:
            return
        finally:
            self._identity = None
