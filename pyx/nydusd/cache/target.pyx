"""Gathering a read's answer: segments that point at where the bytes are, copies only where needed.

One target belongs to one read and one thread at a time; nothing here locks.
"""

from libc.errno cimport EIO
from libc.stdint cimport uint8_t
from libc.string cimport memset

cdef enum:
    ZEROS_BYTES = 65536

cdef uint8_t zeros[ZEROS_BYTES]     # never written


cdef int add_segment(ReadTarget *target, const void *data, size_t size) noexcept nogil:
    """Append *size* bytes at *data*, joined with the segment before when they touch."""
    cdef iovec *last
    if size == 0:
        return 0
    if target.iov_count > 0:
        last = &target.iov[target.iov_count - 1]
        if <const uint8_t *>last.iov_base + last.iov_len == <const uint8_t *>data:
            last.iov_len += size
            target.length += size
            return 0
    if target.iov_count >= target.iov_room:
        return -EIO
    last = &target.iov[target.iov_count]
    last.iov_base = <void *>data
    last.iov_len = size
    target.iov_count += 1
    target.length += size
    return 0


cdef uint8_t *add_room(ReadTarget *target, size_t size) noexcept nogil:
    cdef uint8_t *start
    if size > target.buf_room - target.buf_used:
        return NULL
    start = target.buf + target.buf_used
    if add_segment(target, start, size) != 0:
        return NULL
    target.buf_used += size
    return start


cdef Mark mark(const ReadTarget *target) noexcept nogil:
    cdef Mark start
    start.iov_count = target.iov_count
    start.buf_used = target.buf_used
    start.length = target.length
    start.last = target.iov[target.iov_count - 1].iov_len if target.iov_count > 0 else 0
    return start


cdef void undo(ReadTarget *target, const Mark *start) noexcept nogil:
    target.iov_count = start.iov_count
    target.buf_used = start.buf_used
    target.length = start.length
    if start.iov_count > 0:
        target.iov[start.iov_count - 1].iov_len = start.last


cdef int add_zeros(ReadTarget *target, size_t size) noexcept nogil:
    """Append zeros: from a page that is always there when they fit it, else into buf."""
    cdef uint8_t *start
    if size <= ZEROS_BYTES and target.iov_count < target.iov_room:
        return add_segment(target, zeros, size)
    start = add_room(target, size)
    if start == NULL:
        return -EIO
    memset(start, 0, size)
    return 0
