"""A file system in memory, for tests of what stands above file systems."""

from __future__ import annotations

import errno
import stat
import threading

from nydusd.fs.filesystem import PyFilesystem
from nydusd.fs.stat import Entry, Opened, Stat

ROOT = 1


class MemoryFs(PyFilesystem):
    """Files of one directory, by name. A read of a *stalled* one waits until `release` is set."""

    def __init__(self, files: dict[bytes, bytes], stalled: set[bytes] = frozenset()):
        self.names = list(files)
        self.data = list(files.values())
        self.stalled = stalled
        self.release = threading.Event()
        self.closed: list[int] = []
        self.set_root(ROOT)

    def ino(self, name: bytes) -> int:
        return self.names.index(name) + ROOT + 1

    def find(self, ino, name):
        return self.stat(self.ino(name)) if name in self.names else None

    def stat(self, ino):
        if ino == ROOT:
            return Stat(ROOT, stat.S_IFDIR | 0o755, nlink=2, mtime_ns=12_500_000_000)
        if ino - ROOT > len(self.names):
            raise OSError(errno.ENOENT, "no such inode")
        return Stat(ino, stat.S_IFREG | 0o644, size=len(self.data[ino - ROOT - 1]))

    def read_link(self, ino):
        return b"target"

    def open_file(self, ino, flags):
        return Opened(ino * 10)

    def close_file(self, ino, handle):
        self.closed.append(handle)

    def read_file(self, ino, handle, offset, size):
        if self.names[ino - ROOT - 1] in self.stalled:
            self.release.wait(30)
        return self.data[ino - ROOT - 1][offset : offset + size]

    def entries(self, ino, handle, offset):
        return [
            Entry(name, ROOT + 1 + at, at + 1, stat.S_IFREG >> 12)
            for at, name in enumerate(self.names)
            if at >= offset
        ]

    def get_xattr(self, ino, name):
        if name == b"user.key":
            return b"value"
        raise OSError(errno.ENODATA, "no such attribute")

    def list_xattrs(self, ino):
        return [b"user.key", b"user.other"]

    def inode_count(self):
        return len(self.names) + 1
