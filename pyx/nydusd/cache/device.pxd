# All blobs of one image, by blob index.
from libc.stdint cimport uint32_t

from nydusd.cache.target cimport ReadTarget
from nydusd.rafs.bootstrap cimport ChunkSpan

cdef class Device:
    # READ_DONE, READ_MISSING, READ_CLAIMED or -errno; never blocks on a backend, never the GIL
    cdef int read(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) noexcept nogil
    # The gate up, from a thread that may wait: READ_ANSWERED, READ_AGAIN or -errno (not answered).
    # *following*: whole chunks that may be fetched along (v5 amplification).
    cdef int fetch(self, const ChunkSpan *spans, uint32_t count,
                   const ChunkSpan *following, uint32_t following_count,
                   ReadTarget *target) noexcept nogil
