"""What a file system written in Python answers: plain values, turned into structs at its gate."""

from nydusd.base.record import NamedTuple


class Stat(NamedTuple):
    """One inode. Sizes in bytes, *blocks* of 512 bytes, times in nanoseconds since the epoch."""

    ino: int
    mode: int  # with type bits
    size: int = 0
    blocks: int = 0
    nlink: int = 1
    uid: int = 0
    gid: int = 0
    rdev: int = 0
    mtime_ns: int = 0
    valid: int = 1 << 32  # seconds the kernel may keep it, and the name that led to it
    atime_ns: int = 0
    ctime_ns: int = 0


class Entry(NamedTuple):
    """One name of a directory; *kind* is its S_IFMT bits >> 12, 0 = unknown."""

    name: bytes
    ino: int
    next_offset: int  # where to go on after it
    kind: int = 0


class Opened(NamedTuple):
    """An open file or directory, and what the kernel may keep of it."""

    handle: int = 0
    keep_cache: bool = False  # what is cached of the file is still right
    cache_directory: bool = False  # the listing may be cached
    direct_io: bool = False  # nothing may be cached


class Caller(NamedTuple):
    """Who asks for a change."""

    uid: int
    gid: int
    pid: int


class Changes(NamedTuple):
    """What is to be changed of an inode; None = it stays as it is. Times as in `Stat`."""

    mode: int | None = None  # permission bits
    uid: int | None = None
    gid: int | None = None
    size: int | None = None
    atime_ns: int | None = None  # NOW = the present
    mtime_ns: int | None = None
    kills_privileges: bool = False  # set-user-id and set-group-id bits go


NOW = -(1 << 63)  # of a time: the moment of the change


class Statistics(NamedTuple):
    """What statfs tells of a file system; blocks of *block_size* bytes."""

    blocks: int = 0
    free_blocks: int = 0
    available_blocks: int = 0
    files: int = 0
    free_files: int = 0
    block_size: int = 512
    fragment_size: int = 0
    name_max: int = 255
