"""Ranges of many files read into one buffer, in one call and without the GIL.

A tree of small files costs more in calls than in bytes; here a file costs four system calls and
no Python.
"""

from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.fcntl cimport O_RDONLY
from posix.fcntl cimport open as c_open
from posix.unistd cimport close as c_close
from posix.unistd cimport pread as c_pread

cdef extern from "<sys/stat.h>" nogil:
    struct timespec "timespec":
        int64_t tv_sec
        long tv_nsec
    struct stat_t "stat":
        int64_t st_size
        timespec st_mtim
    int c_fstat "fstat"(int, stat_t *)

cdef extern from "<fcntl.h>" nogil:
    int O_CLOEXEC, O_NOFOLLOW, O_NONBLOCK

cdef enum:
    CHANGED = 1     # instead of an errno: not the file that was looked at

# One range of one file.
cdef struct Range:
    const char *path        # until the call returns
    uint64_t offset
    uint64_t length
    uint64_t file_size      # as it was looked at
    int64_t mtime
    int64_t mtime_nsec
    uint8_t *at             # in the buffer


cdef int read_range(const Range *wanted) noexcept nogil:
    """0, a positive CHANGED or -errno."""
    cdef int fd = c_open(wanted.path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK)
    cdef uint64_t done = 0
    cdef ssize_t n
    cdef stat_t now
    cdef int result = 0
    if fd < 0:
        return -errno
    while done < wanted.length:
        n = c_pread(fd, wanted.at + done, wanted.length - done, <int64_t>(wanted.offset + done))
        if n < 0:
            if errno == EINTR:
                continue
            result = -errno
            break
        if n == 0:
            result = CHANGED
            break
        done += <uint64_t>n
    if result == 0:
        if c_fstat(fd, &now) != 0:
            result = -errno
        elif (<uint64_t>now.st_size != wanted.file_size or now.st_mtim.tv_sec != wanted.mtime
              or now.st_mtim.tv_nsec != wanted.mtime_nsec):
            result = CHANGED
    c_close(fd)
    return result


def read_files(list ranges, uint8_t[::1] buffer):
    """Fill *buffer* with the *ranges*, one behind the other; where and how it went wrong, or None.

    A range is (path, offset, length, size of the file, mtime, nanoseconds of it). The result is
    (index of the range, errno); the errno is 0 when the file is not as it was looked at.
    """
    cdef size_t count = len(ranges), i
    cdef Range *wanted
    cdef uint64_t used = 0
    cdef int result = 0
    cdef tuple row
    if count == 0:
        return None
    wanted = <Range *>calloc(count, sizeof(Range))
    if wanted == NULL:
        raise MemoryError
    try:
        for i in range(count):
            row = ranges[i]
            wanted[i].path = <bytes>row[0]
            wanted[i].offset = row[1]
            wanted[i].length = row[2]
            wanted[i].file_size = row[3]
            wanted[i].mtime = row[4]
            wanted[i].mtime_nsec = row[5]
            if wanted[i].length > <uint64_t>buffer.shape[0] - used:
                raise ValueError("the ranges are longer than the buffer")
            wanted[i].at = &buffer[0] + used
            used += wanted[i].length
        with nogil:
            for i in range(count):
                result = read_range(&wanted[i])
                if result != 0:
                    break
        if result == 0:
            return None
        return i, (0 if result == CHANGED else -result)
    finally:
        free(wanted)
