"""What a file system written in Python answers: plain values, turned into structs at its gate."""

from typing import NamedTuple


class Stat(NamedTuple):
    """One inode. Sizes in bytes, *blocks* of 512 bytes, times in seconds since the epoch."""

    ino: int
    mode: int  # with type bits
    size: int = 0
    blocks: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime: float = 0.0
    valid: int = 1 << 32  # seconds the kernel may keep it, and the name that led to it


class Entry(NamedTuple):
    """One name of a directory; *kind* is its S_IFMT bits >> 12, 0 = unknown."""

    name: bytes
    ino: int
    next_offset: int  # where to go on after it
    kind: int = 0
