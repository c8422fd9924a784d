"""Finds the files again that a predecessor told the kernel of, by their numbers.

A successor has no descriptor of them, and no name: it goes through the directory once, and notes
where each number is. Any thread; one at a time searches.
"""

import logging
import os
import stat as mode_bits
import threading
from typing import Final

from nydusd.fs import host_directory as host
from nydusd.fs.host_calls import device_of
from nydusd.fs.host_inodes import ROOT, HostInode, HostInodes

logger = logging.getLogger("nydusd")

NAMES_MAX: Final = 2_000_000  # what is beyond them is not found
DEPTH_MAX: Final = 4096
MAYBE_DIRECTORY: Final = (0, mode_bits.S_IFDIR >> 12)  # 0: the host does not say


class HostSearch:
    """Numbers of files below the root of *inodes*, on its device."""

    def __init__(self, inodes: HostInodes) -> None:
        self._inodes = inodes
        self._lock = threading.Lock()
        # number -> (number of the directory, name); these: guarded by self._lock
        self._places: dict[int, tuple[int, bytes]] = {}
        self._has_looked = False

    def find(self, number: int) -> HostInode | None:
        """The inode of *number*, known from now on; None when it is nowhere (any more)."""
        with self._lock:
            if not self._has_looked:
                self._has_looked = True
                self._look()
                logger.info("found %d names of the host directory again", len(self._places))
            fd = self._open(number)
        if fd < 0:
            return None
        inode, _ = self._inodes.add(fd, counts=False)
        return inode if inode.number == number else None

    def _open(self, number: int) -> int:
        """A descriptor of what was at the place of *number*; -1 when there is nothing."""
        names: list[bytes] = []
        at = number
        while at != ROOT:
            place = self._places.get(at)
            if place is None or len(names) > DEPTH_MAX:
                return -1
            at = place[0]
            names.append(place[1])
        fd = os.dup(self._inodes.root.fd)
        try:
            for name in reversed(names):
                above, fd = fd, host.look(fd, name)
                os.close(above)
        except OSError:
            os.close(fd)
            return -1
        return fd

    def _look(self) -> None:
        """Note the place of every number."""
        waiting = [ROOT]
        while waiting and len(self._places) < NAMES_MAX:
            parent = waiting.pop()
            fd = self._open(parent)
            if fd < 0:
                continue
            try:
                waiting += self._note(parent, fd)
            except OSError as exc:
                logger.info("a directory could not be searched: %s", exc)
            finally:
                os.close(fd)

    def _note(self, parent: int, fd: int) -> list[int]:
        """Note the places of what is in the directory *parent*; the numbers of directories."""
        device = self._inodes.root.key[0]
        if device_of(fd) != device:
            return []
        found = []
        opened = host.open_again(fd, os.O_RDONLY | os.O_DIRECTORY)
        try:
            while rows := host.list_directory(opened):
                for name, ino, _, kind in rows:
                    number = self._inodes.shown(device, ino)
                    if name in (b".", b"..") or number in self._places:
                        continue
                    self._places[number] = (parent, name)
                    if kind in MAYBE_DIRECTORY:
                        found.append(number)
        finally:
            os.close(opened)
        return found
