"""/dev/cachefiles: the one open file by which the kernel asks, and is told.

Commands are texts, each in one write (Linux: Documentation/filesystems/caching/cachefiles.rst).
Requests are read by one thread; answers may be written by any.
"""

import contextlib
import errno
import fcntl
import logging
import os
import threading
from pathlib import Path
from typing import Final

from nydusd.fscache.messages import MOST_MESSAGE_BYTES

logger = logging.getLogger("nydusd")

PATH: Final = "/dev/cachefiles"
READ_COMPLETE: Final = 0x4004_9801  # _IOW(0x98, 1, int); the number itself is the argument
CLONE_FS: Final = 0x200


def open_device() -> int:
    """A descriptor of the device; `OSError`: ENOENT without it in the kernel, EBUSY if it is held.

    Only one process can have it open.
    """
    return os.open(PATH, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)


class CacheDevice:
    """The device open at *fd*, which is closed with it."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def bind(self, folder: str, tag: str | None) -> None:
        """Have the kernel cache in *folder*, a directory, and ask us; `OSError`."""
        self.command(f"dir {folder}")
        if tag is not None:
            self.command(f"tag {tag}")
        self.command("bind ondemand")

    def command(self, text: str) -> None:
        """Write *text* whole; `OSError`."""
        data = os.fsencode(text)
        if os.write(self.fd, data) != len(data):
            raise OSError(errno.EIO, os.strerror(errno.EIO), text)

    def receive(self) -> bytes:
        """The next request; empty when there is none. `OSError`."""
        try:
            return os.read(self.fd, MOST_MESSAGE_BYTES)
        except BlockingIOError:  # the kernel says it with 0 bytes
            return b""

    def answer_open(self, message_id: int, size: int) -> None:
        """Say how large the object is, or with a negative errno why there is none."""
        try:
            self.command(f"copen {message_id},{size}")
        except OSError as exc:  # whoever asked has gone
            logger.warning("cachefiles takes no answer to request %d: %s", message_id, exc)

    def finish_read(self, fd: int, message_id: int) -> None:
        """Have whoever waits for the read look at the cache file *fd* again."""
        try:
            fcntl.ioctl(fd, READ_COMPLETE, message_id if message_id < 1 << 31 else -1)
        except OSError as exc:
            logger.warning("cachefiles takes no end of read %d: %s", message_id, exc)

    def drop_file(self, folder: Path, name: str) -> None:
        """Have the kernel remove the cache file *name* in *folder*; `OSError`, EBUSY when in use.

        The kernel looks for it in the caller's working directory: that of a thread which has one of
        its own, so that relative paths of the others keep their meaning.
        """
        failure: list[BaseException] = []

        def ask() -> None:
            try:
                leave_working_directory()
                os.chdir(folder)
                self.command(f"inuse {name}")
                self.command(f"cull {name}")
            except OSError as exc:
                failure.append(exc)

        thread = threading.Thread(target=ask, name="fscache_cull", daemon=True)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]

    def close(self) -> None:
        """Close the device: if nobody else holds it, the kernel gives up its cache."""
        with contextlib.suppress(OSError):
            os.close(self.fd)


def leave_working_directory() -> None:
    """Give this thread a working directory of its own; `OSError`."""
    import ctypes  # only who removes files needs it

    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_FS) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")
