# All blobs of one image, by blob index.
from libc.stdint cimport uint32_t, uint64_t

from nydusd.cache.target cimport ReadTarget
from nydusd.rafs.bootstrap cimport ChunkSpan

cdef class Device:
    cdef readonly tuple blobs           # CachedBlob, or None for a blob without chunks
    cdef readonly uint64_t batch_size   # bytes of one request with its neighbours; 0 = exact
    cdef void **table                   # owned; borrowed CachedBlob of `blobs`, or NULL
    cdef uint32_t count
    cdef object release                 # called once by close()
    cdef object on_fetch                # called before a read asks a backend, or None
    cdef object errors                  # ErrorLog of its fetches

    # READ_DONE, READ_MISSING, READ_CLAIMED or -errno; never blocks on a backend, never the GIL
    cdef int read(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) noexcept nogil
    # The gate up, from a thread that may wait: READ_ANSWERED, READ_AGAIN or -errno (not answered).
    # *following*: whole chunks that may be fetched along (v5 amplification).
    cdef int fetch(self, const ChunkSpan *spans, uint32_t count,
                   const ChunkSpan *following, uint32_t following_count,
                   ReadTarget *target) noexcept nogil
    cdef int look(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) noexcept nogil
    cdef int gather(self, const ChunkSpan *spans, uint32_t count,
                    ReadTarget *target) noexcept nogil
    cdef int fetch_with_gil(self, const ChunkSpan *spans, uint32_t count,
                            const ChunkSpan *following, uint32_t following_count,
                            ReadTarget *target) noexcept with gil
