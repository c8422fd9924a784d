"""Reading spans from Python, the way a carrier does it: read, fetch, wait, writev.

For checks and tests: each call holds its thread until the bytes are there. The bytes leave through
a writev into an anonymous file, so that a cache file cut under its mapping gives EFAULT and not a
signal, as in a carrier.
"""

import os
import time

from cpython.bytes cimport PyBytes_AS_STRING
from libc.errno cimport EFAULT, EIO, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from nydusd.base.parking cimport counter_of
from nydusd.cache.device cimport Device
from nydusd.cache.target cimport (
    READ_AGAIN, READ_ANSWERED, READ_CLAIMED, READ_DONE, READ_MISSING, ReadTarget, iovec,
)
from nydusd.rafs.bootstrap cimport ChunkSpan

from nydusd.base.errors import check


cdef extern from "<sys/uio.h>" nogil:
    ssize_t pwritev(int, const iovec *, int, long)

cdef enum:
    PENDING_WAIT_MS = 2000      # longest wait for somebody else's fetch (the reference's)
    IOV_AT_A_TIME = 1024        # UIO_MAXIOV

cdef double LOOK_SECONDS = 0.001        # between two looks at the counter

# One read and where it goes; `target.owner` points here.
cdef struct Reading:
    ReadTarget target
    int fd                  # borrowed: takes the bytes
    int32_t result          # of the answer


cdef int chunk_span(span, ChunkSpan *out) except -1:
    memset(out, 0, sizeof(ChunkSpan))
    out.flags = span.flags
    out.blob_index = span.blob_index
    out.chunk_index = span.chunk_index
    out.offset = span.offset
    out.length = span.length
    out.uncompressed_size = span.uncompressed_size
    out.uncompressed_offset = span.uncompressed_offset
    out.compressed_offset = span.compressed_offset
    out.compressed_size = span.compressed_size
    out.chunk_flags = span.chunk_flags
    out.crc32 = span.crc32
    if span.digest is not None:
        out.digest = <const uint8_t *>PyBytes_AS_STRING(span.digest)
    return 0


cdef ChunkSpan *chunk_spans(list spans) except NULL:
    """Structs of *spans*, which must outlive them; the caller frees."""
    cdef ChunkSpan *out = <ChunkSpan *>calloc(len(spans) or 1, sizeof(ChunkSpan))
    cdef uint32_t i
    if out == NULL:
        raise MemoryError
    for i in range(len(spans)):
        chunk_span(spans[i], &out[i])
    return out


cdef int write_out(Reading *reading) noexcept nogil:
    """Write the target's segments; 0, -EFAULT, -errno."""
    cdef ReadTarget *target = &reading.target
    cdef uint32_t done = 0
    cdef uint32_t n
    cdef uint32_t i
    cdef long at = 0
    cdef size_t size
    cdef ssize_t written
    while done < target.iov_count:
        n = target.iov_count - done
        if n > IOV_AT_A_TIME:
            n = IOV_AT_A_TIME
        size = 0
        for i in range(done, done + n):
            size += target.iov[i].iov_len
        written = pwritev(reading.fd, &target.iov[done], n, at)
        if written < 0:
            return -errno
        if <size_t>written != size:
            return -EFAULT      # a segment could be read in part
        at += written
        done += n
    return 0


cdef void take_answer(ReadTarget *target, int32_t result) noexcept nogil:
    cdef Reading *reading = <Reading *>target.owner
    reading.result = write_out(reading) if result == 0 else result


cdef int wait_for_change(const uint64_t *counter, uint64_t seen) except -1:
    """Until the counter moves or PENDING_WAIT_MS have passed; whether it was in vain."""
    deadline = time.monotonic() + PENDING_WAIT_MS / 1000
    while counter_of(counter) == seen:
        if time.monotonic() > deadline:
            return 1
        time.sleep(LOOK_SECONDS)
    return 0


cdef int serve(Device device, Reading *reading, const ChunkSpan *spans, uint32_t count,
               const ChunkSpan *following, uint32_t following_count) except? -1:
    """Drive one read to its end, as a carrier does; 0 or -errno."""
    cdef ReadTarget *target = &reading.target
    cdef int rc
    while True:
        target.iov_count = 0
        target.buf_used = target.length = 0
        with nogil:
            rc = device.read(spans, count, target)
            if rc == READ_DONE:
                rc = write_out(reading)
                if rc == -EFAULT and not target.copy_only:
                    target.copy_only = True
                    continue
                return rc
        if rc == READ_CLAIMED:
            if wait_for_change(target.wait_on, target.wait_seen):
                target.impatient = True
            continue
        if rc != READ_MISSING:
            return rc
        with nogil:
            rc = device.fetch(spans, count, following, following_count, target)
        if rc == READ_ANSWERED:
            return reading.result
        if rc != READ_AGAIN:
            return rc


def read_spans(Device device, list spans, list following=None):
    """The bytes of *spans* (`rafs.records.Span`), one after the other.

    *following*: spans that may be fetched along (v5). `OSError` with the errno that a mount would
    give. Any thread; holds it until the bytes are there.
    """
    cdef Reading reading
    cdef ChunkSpan *needed = NULL
    cdef ChunkSpan *others = NULL
    cdef uint32_t count = len(spans)
    cdef list along = following or []
    cdef size_t size = sum(span.length for span in spans)
    cdef int rc
    memset(&reading, 0, sizeof(reading))
    reading.fd = os.memfd_create("spans", os.MFD_CLOEXEC)
    try:
        needed = chunk_spans(spans)
        others = chunk_spans(along)
        reading.target.owner = &reading
        reading.target.answer = take_answer
        reading.target.iov_room = count + 1
        reading.target.iov = <iovec *>calloc(reading.target.iov_room, sizeof(iovec))
        reading.target.buf_room = size
        reading.target.buf = <uint8_t *>calloc(size or 1, 1)
        if reading.target.iov == NULL or reading.target.buf == NULL:
            raise MemoryError
        rc = serve(device, &reading, needed, count, others, len(along))
        check(rc, "read of %d spans, %d bytes", count, size)
        content = os.pread(reading.fd, size, 0)
        if len(content) != size:
            check(-EIO, "%d bytes instead of %d", len(content), size)
        return content
    finally:
        os.close(reading.fd)
        free(needed)
        free(others)
        free(reading.target.iov)
        free(reading.target.buf)
