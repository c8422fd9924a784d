"""The supervisor's socket: one transfer a connection, state and /dev/fuse descriptor together.

The supervisor listens, the daemon connects. A message has no length and no answer: it ends with
the connection (spec of the snapshotter: the supervisor's protocol). The other side may be wrong,
slow or dead, so each transfer has one time limit, and what comes is checked before it is used.

Failures are `UpgradeFailed` in the reference's words. Called on the control thread.
"""

import array
import contextlib
import errno
import os
import socket
import stat
import time
from collections.abc import Iterator
from typing import Final

from nydusd.base.os_error import debug_custom_error, debug_os_error
from nydusd.daemon.errors import UpgradeFailed

TRANSFER_SECONDS: Final = 10.0  # clients wait 30 s for the answer to the request behind it
RECEIVE_BYTES: Final = 1 << 18
MOST_DESCRIPTORS: Final = 16
# A thousand mounts with 16 KiB of configuration each have 16 MiB.
MOST_STATE_BYTES: Final = 64 << 20
FUSE_DEVICE: Final = os.makedev(10, 229)  # Linux: Documentation/admin-guide/devices.txt


def send_state(path: str, data: bytes, fd: int, seconds: float = TRANSFER_SECONDS) -> None:
    """Give *data*, not empty, and descriptor *fd* to the supervisor that listens at *path*."""
    deadline = time.monotonic() + seconds
    with _connection(path, deadline) as sock, _failing("SendFd"):
        view = memoryview(data)
        rights = array.array("i", [fd])
        # One message carries what fits, and the descriptor with it.
        sent = sock.sendmsg([view], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        sock.settimeout(_left(deadline))
        sock.sendall(view[sent:])


def knock(path: str, seconds: float = TRANSFER_SECONDS) -> None:
    """Let whoever listens at *path* see that nothing comes, so that it stops to wait.

    The snapshotter waits for a connection without limit once it has asked for one. Nothing is
    raised: the caller has an error of its own to tell.
    """
    with contextlib.suppress(UpgradeFailed), _connection(path, time.monotonic() + seconds):
        pass


def receive_state(path: str, seconds: float = TRANSFER_SECONDS) -> tuple[bytes, int]:
    """State and /dev/fuse descriptor from the supervisor at *path*.

    The descriptor is the caller's, close-on-exec.
    """
    deadline = time.monotonic() + seconds
    fds: list[int] = []
    try:
        with _connection(path, deadline) as sock, _failing("RecvFd"):
            data = _receive_all(sock, deadline, fds)
        _check_descriptors(fds)
    except BaseException:
        for fd in fds:
            os.close(fd)
        raise
    return data, fds[0]


def _receive_all(sock: socket.socket, deadline: float, fds: list[int]) -> bytes:
    """All bytes until the other side closes; the descriptors that came are added to *fds*."""
    data = bytearray()
    room = socket.CMSG_SPACE(MOST_DESCRIPTORS * array.array("i").itemsize)
    while True:
        sock.settimeout(_left(deadline))
        piece, ancillary, flags, _ = sock.recvmsg(RECEIVE_BYTES, room, socket.MSG_CMSG_CLOEXEC)
        for level, kind, rights in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(rights[: len(rights) // numbers.itemsize * numbers.itemsize])
                fds.extend(numbers)
        if flags & socket.MSG_CTRUNC or len(fds) > MOST_DESCRIPTORS:
            raise _unusable(f"more than {MOST_DESCRIPTORS} descriptors")
        if not piece:
            return bytes(data)
        data += piece
        if len(data) > MOST_STATE_BYTES:
            raise _unusable(f"more than {MOST_STATE_BYTES} bytes")


def _check_descriptors(fds: list[int]) -> None:
    """Exactly one, and it is /dev/fuse."""
    if not fds:
        raise UpgradeFailed("StorageBackendError(NoEnoughFds)")
    if len(fds) != 1:
        raise _unusable(f"{len(fds)} descriptors, and one is expected")
    info = os.fstat(fds[0])
    if not stat.S_ISCHR(info.st_mode) or info.st_rdev != FUSE_DEVICE:
        raise _unusable("the descriptor is not one of /dev/fuse")


def _unusable(what: str) -> UpgradeFailed:
    return UpgradeFailed(f"StorageBackendError(RecvFd({debug_custom_error('InvalidData', what)}))")


def _left(deadline: float) -> float:
    """Seconds until *deadline*; `TimeoutError` when there are none."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


@contextlib.contextmanager
def _failing(step: str) -> Iterator[None]:
    """Turn what the system refuses within into `UpgradeFailed` of *step*."""
    try:
        yield
    except TimeoutError:
        late = OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
        raise UpgradeFailed(f"StorageBackendError({step}({debug_os_error(late)}))") from None
    except OSError as exc:
        # A path that no socket can have comes without a number.
        known = exc if isinstance(exc.errno, int) else OSError(errno.EINVAL, str(exc))
        raise UpgradeFailed(f"StorageBackendError({step}({debug_os_error(known)}))") from exc


@contextlib.contextmanager
def _connection(path: str, deadline: float) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
        with _failing("CreateUnixStream"):
            sock.settimeout(_left(deadline))
            sock.connect(path)
        yield sock
