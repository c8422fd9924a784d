"""Answers of file systems in Python as the compiled side knows them.

Everything that comes through here is Python's: whatever is wrong with it is an exception, which
`refusal` turns into an errno. With the GIL.
"""

from libc.errno cimport EINVAL, EIO, ERANGE
from libc.string cimport memcpy

from nydusd.fs.op cimport OpenOp
from nydusd.rafs.bootstrap cimport Attributes

from nydusd.base.errors import errno_of

cdef enum:
    NANO = 1000000000
    ERRNO_MAX = 4095            # the kernel takes no answer beyond it


cdef int refusal(BaseException exc) noexcept:
    """`-errno` for *exc*: an `OSError` is an answer like any other, a mistake is logged."""
    if isinstance(exc, OverflowError):
        return -EINVAL          # a number of the request that the host's calls cannot take
    is_answer = isinstance(exc, OSError) and exc.errno
    code = exc.errno if is_answer else errno_of(exc)
    return -<int>code if isinstance(code, int) and 0 < code <= ERRNO_MAX else -EIO


cdef int fill(Attributes *attr, object stat) except -1:
    attr.ino = stat.ino
    attr.size = stat.size
    attr.blocks = stat.blocks
    attr.mtime, attr.mtime_nsec = divmod(stat.mtime_ns, NANO)
    attr.atime, attr.atime_nsec = divmod(stat.atime_ns, NANO)
    attr.ctime, attr.ctime_nsec = divmod(stat.ctime_ns, NANO)
    attr.mode = stat.mode
    attr.nlink = stat.nlink
    attr.uid = stat.uid
    attr.gid = stat.gid
    attr.rdev = stat.rdev
    return 0


cdef int fill_opened(OpenOp *op, object opened) except -1:
    op.handle = opened.handle
    op.keep_cache = opened.keep_cache
    op.cache_dir = opened.cache_directory
    op.direct_io = opened.direct_io
    return 0


cdef int put(bytes value, char *buf, size_t room, size_t *length) except? -1:
    length[0] = len(value)
    if room == 0:
        return 0
    if length[0] > room:
        return -ERANGE
    memcpy(buf, <const char *>value, length[0])
    return 0
