"""Open files and directories of a host directory, by the handles that the kernel has of them.

Handles begin at a random number: those that a predecessor gave out mean nothing here. Any thread.
"""

import errno
import os
import random
import threading

from nydusd.fs import host_directory as host
from nydusd.fs.host_inodes import HostInode


class OpenFile:
    """One open file or directory; its descriptor is closed when nobody uses the object any more."""

    __slots__ = ("fd", "known", "listing")

    def __init__(self, inode: HostInode, fd: int, listing: "Listing | None" = None) -> None:
        self.known = inode.known
        self.fd = fd
        self.listing = listing
        self.known.opens += 1

    def __del__(self) -> None:
        """Close the descriptor."""
        self.known.opens -= 1
        os.close(self.fd)


class Listing:
    """Reads a directory from any offset on; a buffer of names is kept for the next request."""

    def __init__(self, fd: int) -> None:
        self._fd = fd  # borrowed
        self._lock = threading.Lock()
        self._position = 0  # where the descriptor stands; these: guarded by self._lock
        self._rows: list[tuple[bytes, int, int, int]] = []

    def after(self, offset: int) -> list[tuple[bytes, int, int, int]]:
        """Names behind *offset*, as `list_directory` has them, not all; [] at the end."""
        with self._lock:
            if offset != 0:
                for index, row in enumerate(self._rows[:-1]):
                    if row[2] == offset:
                        return self._rows[index + 1 :]
            if offset != self._position or offset == 0:  # 0: what is new is to be seen
                os.lseek(self._fd, offset, os.SEEK_SET)
            self._rows = host.list_directory(self._fd)
            self._position = self._rows[-1][2] if self._rows else offset
            return self._rows


class OpenFiles:
    """What is open, by handle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = random.getrandbits(62)  # these: guarded by self._lock
        self._files: dict[int, OpenFile] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._files)

    def add(self, inode: HostInode, fd: int) -> int:
        """A handle for *fd*, which is taken over."""
        file = OpenFile(inode, fd)
        with self._lock:
            self._next += 1
            self._files[self._next] = file
            return self._next

    def get(self, inode: HostInode, handle: int) -> OpenFile:
        """What *handle* stands for; one of a predecessor is opened again.

        The kernel has found out what the holder of a handle may do with it.
        """
        file = self._files.get(handle)
        if file is None:
            file = OpenFile(inode, open_somehow(inode.fd))
            with self._lock:
                file = self._files.setdefault(handle, file)
        if file.known is not inode.known:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return file

    def directory(self, inode: HostInode, handle: int) -> Listing:
        """The listing that *handle* stands for."""
        file = self.get(inode, handle)
        if file.listing is None:
            file.listing = Listing(file.fd)
        return file.listing

    def remove(self, handle: int) -> None:
        """Close *handle*."""
        with self._lock:
            self._files.pop(handle, None)

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            self._files = {}


def open_somehow(fd: int) -> int:
    """The inode of *fd*, opened for as much as it can be."""
    try:
        return host.open_again(fd, os.O_RDWR)
    except OSError:
        return host.open_again(fd, os.O_RDONLY)
