"""Which inode of the host a number stands for, as long as the kernel knows it.

The mount table has 48 bits for a number, the host a device and 64 bits. Where those fit, the number
is made of them (7 bits of the device, 40 of the inode), so that it means the same file in another
process: a successor finds again what the kernel knows. Where they do not fit, or two devices have
the same 7 bits, numbers are given out as they are needed, from a random one on, so that those of
another process mean nothing here.

Inodes are held open with O_PATH, up to a limit. Where the host can open an inode by its handle
(name_to_handle_at), those that were not used lately are closed, and opened again when they are
needed: the handle says whether the file is still the same. Where it cannot, more than the limit are
refused. Any thread.
"""

import contextlib
import errno
import logging
import os
import random
import resource
import stat as mode_bits
import threading
from collections import OrderedDict
from typing import Final

from nydusd.fs import host_directory as host
from nydusd.fs.host_calls import handle_of, open_handle

logger = logging.getLogger("nydusd")

ROOT: Final = 1
INO_BITS: Final = 40
DEVICES: Final = 1 << 7
GIVEN: Final = 1 << 47  # bit of the numbers that are given out
DESCRIPTORS_MAX: Final = 1 << 16  # worth holding where they can be opened again


class Known:
    """What is remembered of an inode that the kernel knows; changed under the table's lock."""

    __slots__ = ("cached", "count", "handle", "inode", "key", "kind", "number", "opens")

    def __init__(self, number: int, found: os.stat_result) -> None:
        self.number = number
        self.key = (found.st_dev, found.st_ino)
        self.kind = mode_bits.S_IFMT(found.st_mode)
        self.handle: bytes | None = None  # once it was closed: what it can be opened by
        self.count = 0  # of the times that the kernel was told
        self.opens = 0  # open files: it is not closed meanwhile
        self.inode: HostInode | None = None  # while it is held open
        # (mtime, size) of the file when the kernel began to cache it; None = nothing is known
        self.cached: tuple[int, int] | None = None


class HostInode:
    """An inode that is held open, until nobody uses the object any more."""

    __slots__ = ("fd", "key", "kind", "known", "number")

    def __init__(self, fd: int, known: Known) -> None:
        self.fd = fd  # O_PATH
        self.known = known
        self.number = known.number
        self.key = known.key
        self.kind = known.kind

    def __del__(self) -> None:
        """Close the descriptor."""
        os.close(self.fd)


def limit_of_descriptors() -> int:
    """How many inodes one table may hold: half of what the process may open is for other things."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(64, min(soft // 2, DESCRIPTORS_MAX))


class HostInodes:
    """Inodes below the directory of *root_fd*, which is taken over, by number."""

    def __init__(
        self, root_fd: int, limit: int | None = None, *, uses_handles: bool = True
    ) -> None:
        found = os.fstat(root_fd)
        self._lock = threading.RLock()
        self._limit = limit_of_descriptors() if limit is None else limit
        self._has_warned = False
        self._next = random.getrandbits(45)
        self._device = found.st_dev
        self._mount_fd = opened_for_handles(root_fd) if uses_handles else -1
        known = Known(ROOT, found)
        self._root = known.inode = HostInode(root_fd, known)
        self._by_number = {ROOT: known}  # these: guarded by self._lock
        self._by_key = {known.key: known}
        self._held: OrderedDict[int, Known] = OrderedDict()  # used last at the end; not the root
        self._devices = {bits_of(found.st_dev): found.st_dev}

    def __len__(self) -> int:
        """How many inodes are known."""
        return len(self._by_number)

    @property
    def held(self) -> int:
        """How many inodes are held open, without the root."""
        return len(self._held)

    @property
    def root(self) -> HostInode:
        """The directory itself."""
        return self._root

    def get(self, number: int) -> HostInode:
        """The inode that *number* stands for; ESTALE makes the kernel look its name up again."""
        known = self._by_number.get(number)
        if known is None:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        inode = known.inode
        if inode is None:
            return self._open_again(known)
        with contextlib.suppress(KeyError):  # the root, or closed by another thread by now
            self._held.move_to_end(number)
        return inode

    def _open_again(self, known: Known) -> HostInode:
        assert known.handle is not None
        fd = open_handle(self._mount_fd, known.handle)
        with self._lock:
            if known.inode is None:
                self._hold(known, fd)
            else:
                os.close(fd)
            assert known.inode is not None
            return known.inode

    def add(self, fd: int, *, counts: bool = True) -> tuple[HostInode, os.stat_result]:
        """The inode of *fd*, which is taken over, with its status; *counts*: the kernel is told."""
        try:
            found = os.fstat(fd)
            with self._lock:
                known = self._by_key.get((found.st_dev, found.st_ino))
                if known is not None and known.inode is None and known.handle != handle_of(fd):
                    known = None  # another file has got its inode since
                if known is None:
                    known = self._insert(found)
                inode = known.inode
                if inode is None:
                    inode = self._hold(known, fd)
                    fd = -1
                known.count += counts
        finally:
            if fd >= 0:
                os.close(fd)
        return inode, found

    def _insert(self, found: os.stat_result) -> Known:
        self._make_room()
        number = self._number(found.st_dev, found.st_ino)
        if number is None or number in self._by_number:
            number = GIVEN | self._next
            self._next = (self._next + 1) % GIVEN
        known = Known(number, found)
        self._by_number[number] = self._by_key[known.key] = known
        return known

    def _hold(self, known: Known, fd: int) -> HostInode:
        self._make_room()
        known.inode = HostInode(fd, known)
        self._held[known.number] = known
        return known.inode

    def _make_room(self) -> None:
        """Close what was not used lately; EMFILE when nothing can be closed."""
        for _ in range(len(self._held)):
            if len(self._held) < self._limit:
                return
            number, known = self._held.popitem(last=False)
            if not self._close(known):
                self._held[number] = known
        if len(self._held) < self._limit:
            return
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "host directory: the kernel knows %d files, each of which is held open, and no "
                "more may be; see --rlimit-nofile",
                self._limit,
            )
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def _close(self, known: Known) -> bool:
        """Let go of the descriptor of *known*; false when it could not be had again."""
        if self._mount_fd < 0 or known.key[0] != self._device or known.opens > 0:
            return False
        if known.handle is None:
            assert known.inode is not None
            known.handle = handle_of(known.inode.fd)
        known.inode = None  # closed by the last operation that is under way
        return True

    def forget(self, number: int, count: int) -> None:
        """Take back *count* of the times that the kernel was told of *number*."""
        with self._lock:
            known = self._by_number.get(number)
            if known is None:
                return
            known.count = max(0, known.count - count)
            if known.count > 0 or number == ROOT:
                return
            del self._by_number[number]
            if self._by_key.get(known.key) is known:
                del self._by_key[known.key]
            self._held.pop(number, None)
            known.inode = None

    def _number(self, device: int, ino: int) -> int | None:
        """The number that device and inode make, if they can."""
        bits = bits_of(device)
        number = bits << INO_BITS | ino
        if ino >> INO_BITS or number <= ROOT:
            return None
        return number if self._devices.setdefault(bits, device) == device else None

    def shown(self, device: int, ino: int) -> int:
        """The number to list for a name, whether its inode is known or not."""
        known = self._by_key.get((device, ino))
        if known is not None:
            return known.number
        with self._lock:
            number = self._number(device, ino)
        return GIVEN | ino % GIVEN if number is None else number

    def close(self) -> None:
        """Let go of every inode; nothing is asked afterwards."""
        with self._lock:
            for known in self._by_number.values():
                known.inode = None
            self._by_number = {}
            self._by_key = {}
            self._held.clear()
            if self._mount_fd >= 0:
                os.close(self._mount_fd)
                self._mount_fd = -1


def bits_of(device: int) -> int:
    """Seven bits of a device number."""
    return (os.minor(device) ^ os.minor(device) >> 7 ^ os.major(device) * 31) % DEVICES


def opened_for_handles(root_fd: int) -> int:
    """The directory, opened so that handles can be opened by it; -1 where that does not work."""
    fd = host.open_again(root_fd, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.close(open_handle(fd, handle_of(root_fd)))
    except OSError as exc:
        os.close(fd)
        logger.info("files of the host directory cannot be opened by handles: %s", exc)
        return -1
    return fd
