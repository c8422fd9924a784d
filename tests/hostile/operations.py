"""The same random operations on a mount and on the tree it was made of: the same answers."""
# Paths are bytes here, as file systems have them: no `Path`.
# ruff: noqa: PTH115, PTH118, PTH120, PTH208

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import stat
from collections.abc import Callable, Iterator
from random import Random

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.opendir.restype = ctypes.c_void_p
LIBC.opendir.argtypes = [ctypes.c_char_p]
LIBC.readdir.restype = ctypes.c_void_p
LIBC.readdir.argtypes = LIBC.closedir.argtypes = LIBC.telldir.argtypes = [ctypes.c_void_p]
LIBC.telldir.restype = ctypes.c_long
LIBC.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
LIBC.seekdir.restype = None
NAME_OFFSET = 19  # of d_name in struct dirent
READ_MAX = 1 << 18


def paths_below(root: bytes) -> list[bytes]:
    """Every path below *root*, relative, `.` among them."""
    found = [b"."]
    for folder, directories, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        found += [os.path.normpath(os.path.join(inside, name)) for name in directories + names]
    return sorted(found)


class Sequence:
    """Some operations in a row, decided by *rng* alone; `run` gives an answer for each."""

    def __init__(self, rng: Random, paths: list[bytes]) -> None:
        self.paths = paths
        self.steps = [
            (rng.choice(OPERATIONS), self._path(rng), rng.getrandbits(64))
            for _ in range(rng.randint(4, 14))
        ]

    def _path(self, rng: Random) -> bytes:
        """Mostly one that is there; else one that is nearly."""
        path = rng.choice(self.paths)
        return rng.choice([path] * 12 + [path + b"x", path + b"/x", b"n" * 256, path + b"/.."])

    def run(self, root: bytes) -> list[tuple[object, ...]]:
        """What each step answered; an error is its number."""
        answers: list[tuple[object, ...]] = []
        files: dict[bytes, int] = {}
        try:
            for operation, path, number in self.steps:
                rng = Random(number)
                try:
                    answers.append((operation.__name__, operation(root, path, files, rng)))
                except OSError as error:
                    name = errno.errorcode.get(error.errno or 0, "?")
                    answers.append((operation.__name__, path, name))
        finally:
            for fd in files.values():
                os.close(fd)
        return answers


def opened(root: bytes, path: bytes, files: dict[bytes, int]) -> int:
    """A descriptor that stays open to the end of the sequence; links are not followed."""
    if path not in files:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW
        full = os.path.join(root, path)
        kind = os.lstat(full).st_mode
        if stat.S_ISCHR(kind) or stat.S_ISBLK(kind):
            raise OSError(errno.ENODEV, "no device is opened")  # it would be the machine's own
        files[path] = os.open(full, flags)
    return files[path]


def do_stat(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    info = os.lstat(os.path.join(root, path))
    size = info.st_size if not stat.S_ISDIR(info.st_mode) else 0
    is_root = os.path.normpath(path) == b"."
    mode = info.st_mode if not is_root else 0  # the root's are the mountpoint's
    owner = (info.st_uid, info.st_gid, info.st_rdev)
    when = info.st_mtime_ns if info.st_mtime_ns >= 10**9 else 0  # 0 s is shown as the start
    return mode, info.st_nlink, owner, size, when if not is_root else 0


def do_list(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    return sorted(os.listdir(os.path.join(root, path)))


def do_seek_in_directory(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    """Every name, and that a place that was told leads there again."""
    handle = LIBC.opendir(os.path.join(root, path))
    if not handle:
        raise OSError(ctypes.get_errno(), "opendir")
    try:
        places: list[int] = []
        names: list[bytes] = []
        while True:
            places.append(LIBC.telldir(handle))
            entry = LIBC.readdir(handle)
            if not entry:
                break
            names.append(ctypes.string_at(entry + NAME_OFFSET))
        again = rng.randrange(len(places))
        LIBC.seekdir(handle, places[again])
        rest = []
        while entry := LIBC.readdir(handle):
            rest.append(ctypes.string_at(entry + NAME_OFFSET))
        assert rest == names[again:], (path, again, names, rest)
        return sorted(names)
    finally:
        LIBC.closedir(handle)


def do_readlink(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    return os.readlink(os.path.join(root, path))


def do_pread(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    fd = opened(root, path, files)
    size = os.fstat(fd).st_size if stat.S_ISREG(os.fstat(fd).st_mode) else 0
    offset = rng.choice([0, 1, 4095, 4096, size, size + 1, size - 1, rng.randint(0, size + 1)])
    length = rng.choice([0, 1, 4096, 4097, READ_MAX, rng.randint(0, READ_MAX)])
    return os.pread(fd, length, offset)


def do_seek_and_read(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    fd = opened(root, path, files)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return None
    whence = rng.choice([os.SEEK_SET, os.SEEK_CUR, os.SEEK_END])
    at = os.lseek(fd, rng.randint(-3, 5000), whence)
    return at, os.read(fd, rng.randint(0, 9000))


def do_seek_hole(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    """Holes may be told or not; what is told must be right, and its errors the same."""
    fd = opened(root, path, files)
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):
        return None
    start = rng.randint(0, info.st_size + 2)
    hole = os.lseek(fd, start, os.SEEK_HOLE)
    assert start <= hole <= info.st_size
    if hole < info.st_size:
        assert os.pread(fd, 1, hole) == b"\0"
    return None


def do_mmap(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    fd = opened(root, path, files)
    size = os.fstat(fd).st_size
    if not stat.S_ISREG(os.fstat(fd).st_mode) or size == 0:
        return None
    with mmap.mmap(fd, size, prot=mmap.PROT_READ) as mapped:
        start = rng.randrange(size)
        return mapped[start : start + rng.randint(0, READ_MAX)]


def do_xattrs(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    full = os.path.join(root, path)
    keys = sorted(os.listxattr(full, follow_symlinks=False))
    wanted = rng.choice([*keys, "user.absent"])
    return keys, os.getxattr(full, wanted, follow_symlinks=False)


def do_statfs(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    return os.statvfs(os.path.join(root, path)).f_namemax


def do_open_directory_file(
    root: bytes, path: bytes, files: dict[bytes, int], rng: Random
) -> object:
    fd = os.open(os.path.join(root, path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        return sorted(os.listdir(fd))
    finally:
        os.close(fd)


def do_access(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    return os.access(
        os.path.join(root, path), rng.choice([os.F_OK, os.R_OK]), follow_symlinks=False
    )


def do_same_file(root: bytes, path: bytes, files: dict[bytes, int], rng: Random) -> object:
    """Names of one file have one inode number, others have others."""
    one = os.lstat(os.path.join(root, path))
    two = os.lstat(os.path.join(root, os.path.dirname(path) or b"."))
    return os.path.samestat(one, two)


Operation = Callable[[bytes, bytes, dict[bytes, int], Random], object]
OPERATIONS: list[Operation] = [
    do_stat,
    do_list,
    do_seek_in_directory,
    do_readlink,
    do_pread,
    do_pread,
    do_pread,
    do_seek_and_read,
    do_seek_hole,
    do_mmap,
    do_xattrs,
    do_statfs,
    do_open_directory_file,
    do_access,
    do_same_file,
]


def sequences(seed: str, paths: list[bytes], count: int) -> Iterator[Sequence]:
    """*count* sequences, always the same for *seed*."""
    rng = Random(seed)
    for _ in range(count):
        yield Sequence(rng, paths)
