"""Random operations on two directories at one time: each must answer both alike.

Knows the calls of a file system and nothing of what is behind the directories.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIBC = ctypes.CDLL(None, use_errno=True)
NAMES = [b"a", b"b", b"c", b"\xff\xfe"]
DIRECTORIES = [b"", b"", b"a", b"a/b", b"c"]
NOREPLACE, EXCHANGE = 1, 2
# A pipe must not make anybody wait.
CREATE = os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK


def rename2(old: bytes, new: bytes, flags: int) -> None:
    """See renameat2(2)."""
    at = -100
    if LIBC.renameat2(at, old, at, new, flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """See fallocate(2)."""
    if LIBC.fallocate(fd, mode, ctypes.c_long(offset), ctypes.c_long(length)) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


class Side:
    """One of the two directories, with the files that are held open in it."""

    def __init__(self, root: Path) -> None:
        self.root = os.fsencode(root)
        self.open: list[int] = []

    def fill(self) -> None:
        """Make what most operations find."""
        for path in (b"a", b"a/b", b"c"):
            os.mkdir(self.at(path))  # noqa: PTH102
        for number, path in enumerate((b"b", b"a/a", b"a/b/a", b"a/b/b", b"c/b", b"c/c")):
            with open(self.at(path), "wb") as file:  # noqa: PTH123
                file.write(b"%d" % number * 3000 * number)

    def at(self, path: bytes) -> bytes:
        """The whole path."""
        return self.root + b"/" + path

    def close(self) -> None:
        """Close what is still held open."""
        while self.open:
            os.close(self.open.pop())


Operation = Callable[[Side], Any]


def look(path: bytes) -> tuple[Any, ...]:
    """What a file system says of *path*, as far as two must agree."""
    found = os.lstat(path)
    return shown(found)


def shown(found: os.stat_result) -> tuple[Any, ...]:
    """*found*, without what is each file system's own."""
    size = 0 if stat.S_ISDIR(found.st_mode) else found.st_size
    links = 0 if stat.S_ISDIR(found.st_mode) else found.st_nlink
    return found.st_mode, size, links, found.st_uid, found.st_gid, found.st_rdev


def read_whole(path: bytes) -> bytes:
    """The content of a regular file."""
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read()


class Sequence:
    """Random operations from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def path(self) -> bytes:
        """Somewhere in the tree, whether there is something or not."""
        parent = self.random.choice(DIRECTORIES)
        name = self.random.choice(NAMES)
        return parent + b"/" + name if parent else name

    def data(self) -> bytes:
        """Something to write."""
        return self.random.randbytes(self.random.choice([0, 1, 100, 4096, 5000, 70000]))

    def offset(self) -> int:
        """Somewhere in a file, or behind it."""
        return self.random.choice([0, 1, 4095, 4096, 10000, 100000])

    def __next__(self) -> Operation:
        """The next operation, to be done on both sides."""
        kind = self.random.choice(KINDS)
        return kind(self)


def mkdir(s: Sequence) -> Operation:
    path, mode = s.path(), s.random.choice([0o777, 0o700, 0o1755])
    return lambda side: os.mkdir(side.at(path), mode)  # noqa: PTH102


def rmdir(s: Sequence) -> Operation:
    path = s.path()
    return lambda side: os.rmdir(side.at(path))  # noqa: PTH106


def unlink(s: Sequence) -> Operation:
    path = s.path()
    return lambda side: os.unlink(side.at(path))  # noqa: PTH108


def create(s: Sequence) -> Operation:
    path, data = s.path(), s.data()
    extra = s.random.choice([0, os.O_EXCL, os.O_TRUNC, os.O_APPEND])
    mode = s.random.choice([0o666, 0o600, 0o444, 0o755])

    def do(side: Side) -> int:
        fd = os.open(side.at(path), CREATE | extra, mode)
        try:
            return os.write(fd, data)
        finally:
            os.close(fd)

    return do


def write(s: Sequence) -> Operation:
    path, data, offset = s.path(), s.data(), s.offset()

    def do(side: Side) -> int:
        fd = os.open(side.at(path), os.O_WRONLY | os.O_NONBLOCK)
        try:
            return os.pwrite(fd, data, offset)
        finally:
            os.close(fd)

    return do


def hold(s: Sequence) -> Operation:
    path = s.path()
    flags = s.random.choice([os.O_RDWR, os.O_RDONLY, os.O_RDWR | os.O_APPEND])

    def do(side: Side) -> None:
        if stat.S_ISREG(os.stat(side.at(path)).st_mode):  # noqa: PTH116
            side.open.append(os.open(side.at(path), flags))

    return do


def on_held(s: Sequence) -> Operation:
    """Something with a file that is held open."""
    what = s.random.choice(HELD)(s)
    which = s.random.randrange(8)

    def do(side: Side) -> Any:
        return what(side.open[which % len(side.open)]) if side.open else None

    return do


def held_read(s: Sequence) -> Callable[[int], Any]:
    offset = s.offset()
    return lambda fd: os.pread(fd, 8192, offset)


def held_write(s: Sequence) -> Callable[[int], Any]:
    data, offset = s.data(), s.offset()
    return lambda fd: os.pwrite(fd, data, offset)


def held_truncate(s: Sequence) -> Callable[[int], Any]:
    size = s.offset()
    return lambda fd: os.ftruncate(fd, size)


def held_look(s: Sequence) -> Callable[[int], Any]:
    return lambda fd: shown(os.fstat(fd))


def held_sync(s: Sequence) -> Callable[[int], Any]:
    return lambda fd: (os.fdatasync(fd), os.fsync(fd))


def held_allocate(s: Sequence) -> Callable[[int], Any]:
    # KEEP_SIZE, PUNCH_HOLE | KEEP_SIZE, none, ZERO_RANGE, and one that is not
    mode, offset = s.random.choice([1, 3, 0, 16, 2]), s.offset()
    length = s.random.choice([1, 4096, 50000])
    return lambda fd: fallocate(fd, mode, offset, length)


def held_seek(s: Sequence) -> Callable[[int], Any]:
    whence, offset = s.random.choice([os.SEEK_END, os.SEEK_SET]), s.offset()
    return lambda fd: os.lseek(fd, offset, whence)


def held_chmod(s: Sequence) -> Callable[[int], Any]:
    mode = s.random.choice([0o600, 0o4755, 0o644])
    return lambda fd: os.fchmod(fd, mode)


HELD = [held_read, held_write, held_truncate, held_look, held_sync, held_allocate]
HELD += [held_seek, held_chmod]


def truncate(s: Sequence) -> Operation:
    path, size = s.path(), s.offset()
    return lambda side: os.truncate(side.at(path), size)


def symlink(s: Sequence) -> Operation:
    path, target = s.path(), s.random.choice([b"a", b"../a", b"nowhere", b"x" * 300])
    return lambda side: os.symlink(target, side.at(path))  # noqa: PTH211


def link(s: Sequence) -> Operation:
    old, new = s.path(), s.path()
    return lambda side: os.link(side.at(old), side.at(new), follow_symlinks=False)


def rename(s: Sequence) -> Operation:
    old, new = s.path(), s.path()
    flags = s.random.choice([0, 0, 0, NOREPLACE, EXCHANGE, NOREPLACE | EXCHANGE])
    return lambda side: rename2(side.at(old), side.at(new), flags)


def chmod(s: Sequence) -> Operation:
    path, mode = s.path(), s.random.choice([0o755, 0o2755, 0o4711, 0o600, 0o1777])
    return lambda side: os.chmod(side.at(path), mode)  # noqa: PTH101


def chown(s: Sequence) -> Operation:
    path, owner = s.path(), s.random.choice([(0, 0), (1000, -1), (-1, 1000)])
    return lambda side: os.lchown(side.at(path), *owner)


def utime(s: Sequence) -> Operation:
    path, when = s.path(), s.random.choice([0, 1_234_567_890_123_456_789, -5_000_000_001])

    def do(side: Side) -> int:
        os.utime(side.at(path), ns=(when, when), follow_symlinks=False)
        return os.lstat(side.at(path)).st_mtime_ns

    return do


def xattr(s: Sequence) -> Operation:
    path, name, value = s.path(), s.random.choice([b"user.a", b"user.\xff"]), s.data()[:1000]
    flags = s.random.choice([0, os.XATTR_CREATE, os.XATTR_REPLACE])
    return lambda side: os.setxattr(side.at(path), name, value, flags, follow_symlinks=False)


def read_xattr(s: Sequence) -> Operation:
    path, name = s.path(), s.random.choice([b"user.a", b"user.\xff", b"nonsense"])
    if s.random.random() < 0.3:
        return lambda side: os.removexattr(side.at(path), name, follow_symlinks=False)
    return lambda side: (
        sorted(os.listxattr(side.at(path), follow_symlinks=False)),
        os.getxattr(side.at(path), name, follow_symlinks=False),
    )


def mknod(s: Sequence) -> Operation:
    path = s.path()
    kind = s.random.choice([stat.S_IFIFO, stat.S_IFREG, stat.S_IFSOCK])
    return lambda side: os.mknod(side.at(path), kind | 0o644, os.makedev(1, 3))


def names(s: Sequence) -> Operation:
    path = s.random.choice(DIRECTORIES)
    return lambda side: sorted(os.listdir(side.at(path)))  # noqa: PTH208


def attributes(s: Sequence) -> Operation:
    path = s.path()
    return lambda side: look(side.at(path))


def content(s: Sequence) -> Operation:
    path = s.path()

    def do(side: Side) -> Any:
        if stat.S_ISLNK(os.lstat(side.at(path)).st_mode):
            return os.readlink(side.at(path))  # noqa: PTH115
        return read_whole(side.at(path)) if stat.S_ISREG(os.lstat(side.at(path)).st_mode) else None

    return do


def copy(s: Sequence) -> Operation:
    old, new, offset = s.path(), s.path(), s.offset()

    def do(side: Side) -> int:
        into = os.open(side.at(new), os.O_WRONLY)
        try:
            source = os.open(side.at(old), os.O_RDONLY | os.O_NONBLOCK)
            try:
                return os.copy_file_range(source, into, 5000, 0, offset)
            finally:
                os.close(source)
        finally:
            os.close(into)

    def guarded(side: Side) -> Any:
        kinds = [stat.S_IFMT(os.lstat(side.at(path)).st_mode) for path in (old, new)]
        return do(side) if kinds == [stat.S_IFREG] * 2 else kinds

    return guarded


KINDS = [mkdir, mkdir, rmdir, unlink, create, create, create, hold, on_held, on_held, on_held]
KINDS += [truncate, symlink, link, rename, rename, chmod, chown, utime, xattr, read_xattr, mknod]
KINDS += [names, attributes, content, copy]


def outcome(operation: Operation, side: Side) -> Any:
    """What *operation* gives, or the errno with which it fails."""
    try:
        return operation(side)
    except OSError as exc:
        return errno.errorcode.get(exc.errno or 0, exc.errno)


def tree(root: Path) -> dict[bytes, tuple[Any, ...]]:
    """Everything below *root*, with content, times and extended attributes."""
    found: dict[bytes, tuple[Any, ...]] = {}
    top = os.fsencode(root)
    for folder, below, files in os.walk(top):
        for name in below + files:
            path = os.path.join(folder, name)  # noqa: PTH118
            info = os.lstat(path)
            held: Any = None
            if stat.S_ISREG(info.st_mode):
                held = read_whole(path)
            elif stat.S_ISLNK(info.st_mode):
                held = os.readlink(path)  # noqa: PTH115
            marks = {
                mark: os.getxattr(path, mark, follow_symlinks=False)
                for mark in os.listxattr(path, follow_symlinks=False)
            }
            found[path[len(top) :]] = (*shown(info), held, marks)
    return found
