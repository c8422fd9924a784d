"""Directories that exist only to hold mount points.

They are made when something is mounted below them and stay when it is gone. Inode 1 is the root,
then 2, 3, ... A name that is missing may be mounted at any time, so its absence is never
remembered. One thread at a time makes directories; any thread looks at them.
"""

import errno
import stat as mode_bits
import time

from nydusd.base.errors import MountError
from nydusd.fs.filesystem import PyFilesystem
from nydusd.fs.stat import Entry, Stat

ROOT_INO = 1
# The mount table keeps one row for each directory.
MAX_DIRECTORIES = 1 << 20
KIND_DIRECTORY = mode_bits.S_IFDIR >> 12


class Directory:
    """One directory; *children* by name, in the order they were made."""

    __slots__ = ("children", "ino", "name", "parent")

    def __init__(self, ino: int, parent: int, name: bytes) -> None:
        self.ino = ino
        self.parent = parent
        self.name = name
        self.children: dict[bytes, int] = {}


def split_path(path: str) -> list[bytes]:
    """The names of an absolute *path*, none for `/`; `MountError` for a path that is not one."""
    if not path.startswith("/") or "\0" in path:
        raise MountError(f"mountpoint {path!r}: must be an absolute path inside the mount")
    names = [name.encode("utf-8", "surrogateescape") for name in path.split("/") if name]
    if any(name in (b".", b"..") or len(name) > 255 for name in names):
        raise MountError(f"mountpoint {path!r}: '.', '..' or a name of more than 255 bytes")
    return names


class PseudoFs(PyFilesystem):
    """A tree of empty directories."""

    def __init__(self) -> None:
        self._directories = {ROOT_INO: Directory(ROOT_INO, ROOT_INO, b"")}
        self._next_ino = ROOT_INO + 1
        self.set_root(ROOT_INO)

    def make(self, names: list[bytes]) -> int:
        """The inode of the directory at *names*, made with its parents where missing."""
        ino = ROOT_INO
        for name in names:
            children = self._directories[ino].children
            if name not in children:
                self._add(ino, name)
            ino = children[name]
        return ino

    def _add(self, parent: int, name: bytes) -> None:
        ino = self._next_ino
        if ino >= MAX_DIRECTORIES:
            raise MountError(f"more than {MAX_DIRECTORIES} directories for mount points")
        self._next_ino += 1
        self._directories[ino] = Directory(ino, parent, name)
        self._directories[parent].children[name] = ino

    def place(self, ino: int) -> tuple[int, bytes]:
        """Parent and name of a directory."""
        directory = self._directories[ino]
        return directory.parent, directory.name

    def names(self, ino: int) -> list[bytes]:
        """The names in a directory."""
        return list(self._directories[ino].children)

    def dump(self) -> tuple[int, list[tuple[int, int, bytes]]]:
        """The next inode and every directory but the root as (ino, parent, name)."""
        return self._next_ino, [
            (d.ino, d.parent, d.name) for d in self._directories.values() if d.ino != ROOT_INO
        ]

    def restore(self, next_ino: int, directories: list[tuple[int, int, bytes]]) -> None:
        """Take over what `dump` of another process gave; the kernel holds its inodes.

        Nothing of what was there before is kept; `MountError` leaves it.
        """
        restored = {ROOT_INO: Directory(ROOT_INO, ROOT_INO, b"")}
        for ino, parent, name in sorted(directories):
            if parent not in restored or ino in restored or not ROOT_INO < ino < MAX_DIRECTORIES:
                raise MountError(f"saved directory {name!r}: inode {ino} of parent {parent}")
            restored[ino] = Directory(ino, parent, name)
            restored[parent].children[name] = ino
        self._directories = restored
        self._next_ino = max(next_ino, max(restored) + 1)

    def _directory(self, ino: int) -> Directory:
        try:
            return self._directories[ino]
        except KeyError:
            raise OSError(errno.ENOENT, "no such directory") from None

    def find(self, ino: int, name: bytes) -> Stat | None:
        """See `PyFilesystem`."""
        child = self._directory(ino).children.get(name)
        return None if child is None else self.stat(child)

    def stat(self, ino: int) -> Stat:
        """See `PyFilesystem`."""
        self._directory(ino)
        return Stat(ino, mode_bits.S_IFDIR | 0o777, nlink=0, mtime_ns=time.time_ns())

    def entries(self, ino: int, handle: int, offset: int) -> list[Entry]:
        """See `PyFilesystem`."""
        directory = self._directory(ino)
        names = [(b".", ino), (b"..", directory.parent), *directory.children.items()]
        return [
            Entry(name, child, index, KIND_DIRECTORY)
            for index, (name, child) in enumerate(names[offset:], offset + 1)
        ]
