# Getting the missing chunks of one blob, for one read or for prefetch.
from libc.stdint cimport uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.claims cimport Claims
from nydusd.cache.decode cimport Decoder
from nydusd.cache.plan cimport Range

cdef class Fetch:
    cdef CachedBlob blob
    cdef Claims claims          # the chunks
    cdef Range *ranges          # owned; what has been had from the backend
    cdef uint32_t range_count
    cdef list stored            # bytearray of each range
    cdef bint stored_elsewhere  # which is the caller's
    cdef Decoder decoder        # owner of every Chunk.plain
    cdef uint32_t runs
    cdef bint aligned           # chunks begin on multiples of 4096 in the plain blob
    cdef bint prefetching
    cdef bint entered           # counts among the blob's users

    # have the stored bytes of all that is wanted, and the plain ones of what is needed; raises
    # what the read gets
    cdef int get(self, uint64_t batch_size) except -1
    # instead of `get`: the stored bytes at *offset* hold every chunk of the fetch, in whole
    cdef int take_stored(self, uint64_t offset, bytearray stored) except -1
    # room for the plain bytes of *count* chunks from *start* on that were had and are in *state*
    cdef int lay_out(self, uint32_t start, uint32_t count, uint32_t state) except -1
    cdef int decode(self, uint32_t i, uint32_t first, uint32_t count, bint needed) except -1
    # the last call: give up the claims that are left, free every buffer and leave the blob; bytes
    # that it asked of the backend
    cdef uint64_t drop(self) except? 0

    cdef int decode_needed(self, uint32_t first) except -1
    cdef bint distrust_bad(self) except -1
    cdef bint renew_table(self) except -1
    cdef int get_range(self, const Range *wanted) except -1
    cdef int get_exactly(self, uint32_t first, uint32_t count) except -1
    cdef int read_range(self, const Range *wanted) except -1
    cdef uint32_t wanted_in(self, const Range *wanted) noexcept nogil
    cdef int take_range(self, const Range *wanted, bytearray raw) except -1
    cdef int place_run(self, uint32_t start, uint32_t end) except -1
