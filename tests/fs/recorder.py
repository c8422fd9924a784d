"""A file system that takes every change and remembers what it was asked for."""

from __future__ import annotations

import stat
from collections import Counter

from nydusd.fs.filesystem import PyFilesystem
from nydusd.fs.stat import Opened, Stat, Statistics

ROOT = 1
MADE = 77


def regular(ino: int) -> Stat:
    return Stat(ino, stat.S_IFREG | 0o640, 9, 1, 1, 5, 6, 0, 12_000_000_034, 5, 1_000_000_002, 3)


class Recorder(PyFilesystem):
    """Each change is a row of `calls`; what is made has the inode `MADE`."""

    def __init__(self):
        self.calls: list[tuple] = []
        self.forgotten: Counter[int] = Counter()
        self.set_root(ROOT)

    def find(self, ino, name):
        return regular(MADE)

    def forget(self, ino, count):
        self.forgotten[ino] += count

    def stat(self, ino):
        return regular(ino)

    def statistics(self, ino):
        return Statistics(1, 2, 3, 4, 5, 6, 7, 8)

    def close_file(self, ino, handle):
        self.calls.append(("close_file", ino, handle))

    def create_file(self, *asked):
        self.calls.append(("create_file", *asked))
        return regular(MADE), Opened(99, keep_cache=True)

    def write_file(self, ino, handle, offset, data, *more):
        self.calls.append(("write_file", ino, handle, offset, bytes(data), *more))
        return len(data)

    def set_xattr(self, ino, name, value, flags):
        self.calls.append(("set_xattr", ino, name, bytes(value), flags))

    def seek(self, *asked):
        self.calls.append(("seek", *asked))
        return 4096

    def copy_range(self, *asked):
        self.calls.append(("copy_range", *asked))
        return 3


def recorded(name: str, answer: object):
    def method(self, *asked):
        self.calls.append((name, *asked))
        return answer

    return method


for _name in ("change_attributes", "make_node", "make_directory", "make_symlink", "make_link"):
    setattr(Recorder, _name, recorded(_name, regular(MADE)))
for _name in (
    "remove_file",
    "remove_directory",
    "rename",
    "flush_file",
    "sync_file",
    "sync_directory",
    "remove_xattr",
    "allocate",
    "check_access",
):
    setattr(Recorder, _name, recorded(_name, None))
