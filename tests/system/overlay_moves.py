# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH112, PTH113, PTH114, PTH118, PTH123, PTH202, PTH208, PTH211
# Names are bytes, as the kernel has them.
"""Seeded random trees, and random operations that are done alike on an overlay and a plain copy.

Both sides must answer with the same result or errno. The one difference that is allowed: a
directory that the image has is not moved but answered with EXDEV, and then the copy does nothing.
"""

from __future__ import annotations

import errno
import mmap
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from nydusd.fs import host_calls

EXCHANGE = 2  # RENAME_EXCHANGE
NAMES = [b"a", b"b", b"c", b"dir", b"sub", b"x y", b"\xff\xfe", "ü".encode()]
XATTRS = ["user.one", "user.two", "trusted.three"]
MODES = [0o644, 0o600, 0o755, 0o000, 0o4755, 0o2770, 0o1777]
MOST_BYTES = 200_000
MOST_OPEN = 4


def random_bytes(rng: random.Random, most: int = MOST_BYTES) -> bytes:
    """Data with runs of zeros in it."""
    parts = []
    left = rng.choice([0, 1, 5, 4096, 70_000, rng.randrange(most)])
    while left > 0:
        size = min(left, rng.choice([1, 100, 4096, 65_536]))
        parts.append(bytes(size) if rng.random() < 0.3 else rng.randbytes(size))
        left -= size
    return b"".join(parts)


def random_tree(rng: random.Random, root: Path) -> None:
    """Some directories, files, links and special files in the new directory *root*."""
    root.mkdir()
    folders = [os.fsencode(root)]
    files: list[bytes] = []
    for _ in range(rng.randrange(6, 20)):
        path = os.path.join(rng.choice(folders), rng.choice(NAMES))
        if os.path.lexists(path):
            continue
        kind = rng.random()
        if kind < 0.3:
            os.mkdir(path)
            folders.append(path)
        elif kind < 0.7:
            with open(path, "wb") as file:
                file.write(random_bytes(rng))
            files.append(path)
        elif kind < 0.8 and files:
            os.link(rng.choice(files), path)
        elif kind < 0.9:
            os.symlink(rng.choice([b"a", b"../b", b"/nowhere", b"dir/sub"]), path)
        else:
            os.mknod(path, rng.choice([stat.S_IFIFO, stat.S_IFSOCK]) | 0o640)
        if not os.path.islink(path):
            os.chmod(path, rng.choice(MODES) | (0o700 if os.path.isdir(path) else 0))
            if rng.random() < 0.3 and not stat.S_ISFIFO(os.lstat(path).st_mode):
                try_xattr(path, rng)
        os.chown(path, rng.choice([0, 1000]), rng.choice([0, 1000]), follow_symlinks=False)
        when = rng.randrange(1, 1 << 31) * 10**9
        os.utime(path, ns=(when, when), follow_symlinks=False)


def try_xattr(path: bytes, rng: random.Random) -> None:
    """An attribute, where the file may have one."""
    info = os.lstat(path)
    if stat.S_ISREG(info.st_mode) or stat.S_ISDIR(info.st_mode):
        os.setxattr(path, rng.choice(XATTRS), rng.randbytes(rng.randrange(30)))


class Moves:
    """Operations drawn from *rng*, each done below *overlay* and below *twin*."""

    def __init__(self, rng: random.Random, overlay: Path, twin: Path) -> None:
        self.rng = rng
        self.roots = (os.fsencode(overlay), os.fsencode(twin))
        self.open: list[tuple[int, int]] = []  # descriptors of the same file on both sides
        self.log: list[str] = []
        self.kinds: list[Callable[[], Callable[[int], object] | None]] = [
            self.write, self.write, self.append, self.cut, self.unlink, self.unlink,
            self.mkdir, self.rmdir, self.rename, self.rename, self.rename, self.link,
            self.symlink, self.chmod, self.chown, self.utime, self.setxattr, self.removexattr,
            self.listdir, self.mknod, self.hold, self.use, self.map, self.exchange, self.read,
            self.allocate, self.clear,
        ]  # fmt: skip

    def run(self, count: int) -> None:
        """Do *count* operations; `AssertionError` with all of them at the first difference."""
        try:
            for _ in range(count):
                kind = self.rng.choice(self.kinds)
                act = kind()
                if act is not None:
                    self.compare(act)
        finally:
            for pair in self.open:
                for fd in pair:
                    os.close(fd)

    def compare(self, act: Callable[[int], object]) -> None:
        """Do *act* on both sides."""
        first = outcome(act, 0)
        if first == ("errno", errno.EXDEV):
            self.log.append("  not moved")
            return
        second = outcome(act, 1)
        assert first == second, "\n".join(
            [*self.log, f"overlay {first!r:.200} twin {second!r:.200}"]
        )

    def path(self) -> list[bytes]:
        """A path below the roots, likely one that exists."""
        names: list[bytes] = []
        while True:
            here = os.path.join(self.roots[1], *names)
            is_folder = os.path.isdir(here) and not os.path.islink(here)
            if not is_folder and self.rng.random() < 0.9:
                return names
            present = sorted(os.listdir(here)) if is_folder else []
            if not present or self.rng.random() < 0.3:
                return [*names, self.rng.choice(NAMES)]
            names.append(self.rng.choice(present))
            if self.rng.random() < 0.3:
                return names

    def at(self, side: int, names: list[bytes]) -> bytes:
        return os.path.join(self.roots[side], *names)

    def note(self, what: str, *arguments: object) -> None:
        self.log.append(f"{what} {' '.join(repr(each)[:60] for each in arguments)}")

    def held(self) -> int | None:
        """Which of the open files to use."""
        return self.rng.randrange(len(self.open)) if self.open else None

    # each draws its arguments, and returns what to do on one side

    def write(self):
        names, data = self.path(), random_bytes(self.rng)
        flags = os.O_CREAT | os.O_RDWR | self.rng.choice([0, os.O_TRUNC, os.O_EXCL])
        offset = self.rng.choice([0, 0, 10, 100_000])
        self.note("write", names, flags, offset, len(data))

        def act(side):
            fd = os.open(self.at(side, names), flags | os.O_NONBLOCK | os.O_NOFOLLOW, 0o640)
            try:
                return os.pwrite(fd, data, offset), os.pread(fd, 1 << 20, 0)
            finally:
                os.close(fd)

        return None if self.is_special(names) else act

    def is_special(self, names: list[bytes]) -> bool:
        """FIFOs and sockets are the kernel's; what writing to one does depends on its readers."""
        path = self.at(1, names)
        return os.path.lexists(path) and stat.S_IFMT(os.lstat(path).st_mode) not in (
            stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)  # fmt: skip

    def append(self):
        names, data = self.path(), random_bytes(self.rng, 5000)
        self.note("append", names, len(data))

        def act(side):
            fd = os.open(self.at(side, names), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)
            try:
                return os.write(fd, data), os.fstat(fd).st_size
            finally:
                os.close(fd)

        return None if self.is_special(names) else act

    def read(self):
        names = self.path()
        self.note("read", names)

        def act(side):
            fd = os.open(self.at(side, names), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                return os.pread(fd, 1 << 20, 0)
            finally:
                os.close(fd)

        return None if self.is_special(names) else act

    def cut(self):
        names, size = self.path(), self.rng.choice([0, 1, 5000, 100_000, 300_000])
        self.note("truncate", names, size)
        if self.is_special(names) or os.path.islink(self.at(1, names)):
            return None
        return lambda side: os.truncate(self.at(side, names), size)

    def allocate(self):
        names, size = self.path(), self.rng.randrange(1, 100_000)
        self.note("fallocate", names, size)
        if self.is_special(names) or os.path.islink(self.at(1, names)):
            return None

        def act(side):
            fd = os.open(self.at(side, names), os.O_WRONLY)
            try:
                os.posix_fallocate(fd, 0, size)
                return os.fstat(fd).st_size
            finally:
                os.close(fd)

        return act

    def unlink(self):
        names = self.path()
        self.note("unlink", names)
        return lambda side: os.unlink(self.at(side, names))

    def mkdir(self):
        names = self.path()
        self.note("mkdir", names)
        return lambda side: os.mkdir(self.at(side, names), 0o750)

    def rmdir(self):
        names = self.path()
        self.note("rmdir", names)
        return lambda side: os.rmdir(self.at(side, names))

    def clear(self):
        """Remove a directory with all that is in it, and make it anew."""
        names = self.path()
        self.note("clear", names)
        path = self.at(1, names)
        if not os.path.isdir(path) or os.path.islink(path):
            return None

        def act(side):
            shutil.rmtree(self.at(side, names))
            os.mkdir(self.at(side, names), 0o755)

        return act

    def rename(self):
        names, target = self.path(), self.path()
        self.note("rename", names, target)
        return lambda side: os.rename(self.at(side, names), self.at(side, target))

    def exchange(self):
        names, target = self.path(), self.path()
        self.note("exchange", names, target)

        def act(side):
            host_calls.rename(-100, self.at(side, names), -100, self.at(side, target), EXCHANGE)

        return act

    def link(self):
        names, target = self.path(), self.path()
        self.note("link", names, target)
        return lambda side: os.link(
            self.at(side, names), self.at(side, target), follow_symlinks=False
        )

    def symlink(self):
        names = self.path()
        where = self.rng.choice([b"a", b"../a", b"sub/b"])
        self.note("symlink", where, names)
        return lambda side: os.symlink(where, self.at(side, names))

    def mknod(self):
        names = self.path()
        self.note("mknod", names)
        return lambda side: os.mknod(self.at(side, names), stat.S_IFCHR | 0o600, os.makedev(1, 300))

    def chmod(self):
        names, mode = self.path(), self.rng.choice(MODES)
        self.note("chmod", names, mode)
        if os.path.islink(self.at(1, names)):
            return None
        return lambda side: os.chmod(self.at(side, names), mode)

    def chown(self):
        names = self.path()
        uid, gid = self.rng.choice([(-1, 1000), (0, -1), (1000, 1000)])
        self.note("chown", names, uid, gid)
        return lambda side: os.chown(self.at(side, names), uid, gid, follow_symlinks=False)

    def utime(self):
        names, when = self.path(), self.rng.randrange(1 << 60)
        self.note("utime", names, when)

        def act(side):
            path = self.at(side, names)
            os.utime(path, ns=(when, when), follow_symlinks=False)
            return os.lstat(path).st_mtime_ns

        return act

    def setxattr(self):
        names, name, value = self.path(), self.rng.choice(XATTRS), self.rng.randbytes(9)
        self.note("setxattr", names, name)
        return lambda side: os.setxattr(self.at(side, names), name, value, follow_symlinks=False)

    def removexattr(self):
        names, name = self.path(), self.rng.choice(XATTRS)
        self.note("removexattr", names, name)
        return lambda side: os.removexattr(self.at(side, names), name, follow_symlinks=False)

    def listdir(self):
        names = self.path()
        self.note("listdir", names)

        def act(side):
            path = self.at(side, names)
            if os.path.islink(path):
                return None
            with os.scandir(path) as entries:
                return sorted(
                    (entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries
                )

        return act

    def hold(self) -> None:
        """Open a file on both sides and keep it open."""
        names = self.path()
        flags = self.rng.choice([os.O_RDONLY, os.O_RDWR, os.O_RDWR | os.O_APPEND])
        self.note("open", names, flags)
        paths = [self.at(side, names) for side in (0, 1)]
        if len(self.open) >= MOST_OPEN or not os.path.isfile(paths[1]) or os.path.islink(paths[1]):
            return
        self.open.append((os.open(paths[0], flags), os.open(paths[1], flags)))

    def use(self):
        """Read and write a file that is open, whatever has become of its name."""
        which, offset = self.held(), self.rng.randrange(100_000)
        if which is None:
            return None
        data = random_bytes(self.rng, 9000)
        closes = self.rng.random() < 0.3
        pair = self.open.pop(which) if closes else self.open[which]
        self.note("use", which, offset, len(data))

        def act(side):
            fd = pair[side]
            try:
                seen = os.pread(fd, 1 << 20, 0), os.fstat(fd).st_size, os.fstat(fd).st_nlink
                try:
                    written = os.pwrite(fd, data, offset)
                except OSError as exc:
                    return seen, exc.errno
                return seen, written, os.pread(fd, 1 << 20, 0)
            finally:
                if closes:
                    os.close(fd)

        return act

    def map(self):
        """Write to a file through a shared mapping."""
        names, data = self.path(), self.rng.randbytes(50)
        self.note("mmap", names)
        path = self.at(1, names)
        if not os.path.isfile(path) or os.path.islink(path) or os.path.getsize(path) < 100:
            return None

        def act(side):
            fd = os.open(self.at(side, names), os.O_RDWR)
            try:
                with mmap.mmap(fd, 0) as mapped:
                    mapped[30 : 30 + len(data)] = data
                    mapped.flush()
                return os.pread(fd, 1 << 20, 0)
            finally:
                os.close(fd)

        return act


def outcome(act: Callable[[int], object], side: int) -> tuple[str, object]:
    """What *act* returned, or the errno with which it failed."""
    try:
        return "result", act(side)
    except OSError as exc:
        return "errno", exc.errno
