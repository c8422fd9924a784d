"""Which inode of the host a number stands for, as long as the kernel knows it.

The mount table has 48 bits for a number, the host a device and 64 bits. Where those fit, the number
is made of them (7 bits of the device, 40 of the inode), so that it means the same file in another
process: a successor finds again what the kernel knows. Where they do not fit, or two devices have
the same 7 bits, numbers are given out as they are needed, from a random one on, so that those of
another process mean nothing here. Each known inode is held open with O_PATH: it cannot be given to
another file meanwhile. Any thread.
"""

import errno
import logging
import os
import random
import resource
import stat as mode_bits
import threading
from typing import Final

logger = logging.getLogger("nydusd")

ROOT: Final = 1
INO_BITS: Final = 40
DEVICES: Final = 1 << 7
GIVEN: Final = 1 << 47  # bit of the numbers that are given out
WARN_ONCE: Final = "host directory: %d files are known to the kernel and held open, no more may be"


class HostInode:
    """One inode; its descriptor is closed when nobody uses the object any more."""

    __slots__ = ("cached", "count", "fd", "key", "kind", "number")

    def __init__(self, number: int, fd: int, found: os.stat_result) -> None:
        self.number = number
        self.fd = fd  # O_PATH
        self.key = (found.st_dev, found.st_ino)
        self.kind = mode_bits.S_IFMT(found.st_mode)
        self.count = 0  # of the times that the kernel was told; guarded by the table
        # (mtime, size) of the file when the kernel began to cache it; None = nothing is known
        self.cached: tuple[int, int] | None = None

    def __del__(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def limit_of_descriptors() -> int:
    """How many inodes one table may hold: half of what the process may open is for other things."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, soft // 2)


class HostInodes:
    """Inodes below the directory of *root_fd*, which is taken over, by number."""

    def __init__(self, root_fd: int, limit: int | None = None) -> None:
        found = os.fstat(root_fd)
        self._lock = threading.Lock()
        self._limit = limit_of_descriptors() if limit is None else limit
        self._has_warned = False
        self._next = random.getrandbits(45)
        root = HostInode(ROOT, root_fd, found)
        self._by_number = {ROOT: root}  # these: guarded by self._lock
        self._by_key = {root.key: root}
        self._devices = {self._bits_of(found.st_dev): found.st_dev}

    def __len__(self) -> int:
        """How many inodes are known."""
        return len(self._by_number)

    @property
    def root(self) -> HostInode:
        """The directory itself."""
        return self._by_number[ROOT]

    def get(self, number: int) -> HostInode:
        """The inode that *number* stands for; ESTALE makes the kernel look its name up again."""
        try:
            return self._by_number[number]
        except KeyError:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE)) from None

    def add(self, fd: int, *, counts: bool = True) -> tuple[HostInode, os.stat_result]:
        """The inode of *fd*, which is taken over, with its status; *counts*: the kernel is told."""
        try:
            found = os.fstat(fd)
            key = (found.st_dev, found.st_ino)
            with self._lock:
                inode = self._by_key.get(key)
                if inode is None:
                    inode = self._insert(fd, found)
                    fd = -1
                inode.count += counts
        finally:
            if fd >= 0:
                os.close(fd)
        return inode, found

    def _insert(self, fd: int, found: os.stat_result) -> HostInode:
        if len(self._by_number) >= self._limit:
            if not self._has_warned:
                self._has_warned = True
                logger.warning(WARN_ONCE + "; see --rlimit-nofile", self._limit)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        number = self._number(found.st_dev, found.st_ino)
        if number is None:
            number = GIVEN | self._next
            self._next = (self._next + 1) % GIVEN
        inode = HostInode(number, fd, found)
        self._by_number[number] = self._by_key[inode.key] = inode
        return inode

    def forget(self, number: int, count: int) -> None:
        """Take back *count* of the times that the kernel was told of *number*."""
        with self._lock:
            inode = self._by_number.get(number)
            if inode is None:
                return
            inode.count = max(0, inode.count - count)
            if inode.count == 0 and number != ROOT:
                del self._by_number[number], self._by_key[inode.key]
        # the descriptor is closed here, or by the last operation that is under way

    @staticmethod
    def _bits_of(device: int) -> int:
        return (os.minor(device) ^ os.minor(device) >> 7 ^ os.major(device) * 31) % DEVICES

    def _number(self, device: int, ino: int) -> int | None:
        """The number that device and inode make, if they can."""
        bits = self._bits_of(device)
        number = bits << INO_BITS | ino
        if ino >> INO_BITS or number <= ROOT:
            return None
        return number if self._devices.setdefault(bits, device) == device else None

    def shown(self, device: int, ino: int) -> int:
        """The number to list for a name, whether its inode is known or not."""
        inode = self._by_key.get((device, ino))
        if inode is not None:
            return inode.number
        with self._lock:
            number = self._number(device, ino)
        return GIVEN | ino % GIVEN if number is None else number

    def close(self) -> None:
        """Let go of every inode but the root."""
        with self._lock:
            root = self._by_number[ROOT]
            self._by_number = {ROOT: root}
            self._by_key = {root.key: root}
