# Getting the missing chunks of one blob, for one read or for prefetch.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.decode cimport Decoder
from nydusd.cache.plan cimport Chunk, Range, Window
from nydusd.rafs.blobmeta cimport ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan

cdef class Fetch:
    cdef CachedBlob blob
    cdef Chunk *chunks          # owned; sorted by place once `sort` has run
    cdef uint32_t count
    cdef uint32_t room
    cdef uint32_t missing       # needed chunks that are not on local disk
    cdef uint32_t wanted        # of these, the ones that this fetch gets
    cdef Range *ranges          # owned; what has been had from the backend
    cdef uint32_t range_count
    cdef list stored            # bytearray of each range
    cdef bint stored_elsewhere  # which is the caller's
    cdef Decoder decoder        # owner of every Chunk.plain
    cdef uint32_t runs
    cdef uint32_t cursor        # where `find` found the last one
    cdef bint aligned           # chunks begin on multiples of 4096 in the plain blob
    cdef bint prefetching
    cdef bint entered           # counts among the blob's users

    cdef Chunk *add(self, uint32_t index, const ChunkPlace *place, const uint8_t *digest,
                    uint32_t state) except NULL
    cdef int need(self, const ChunkSpan *span) except -1
    cdef int sort(self) except -1
    # what the cache file does not answer (`Decoder.look_up`) counts as missing
    cdef int look_up(self) except -1
    # claim what is needed and missing, or take it *regardless* of who else has claimed it
    cdef int claim(self, bint regardless) except -1
    # claim what is not here of wanted units, and neighbours while the range stays within
    # *batch_size*; *following* for a blob without CI array
    cdef int bring_along(self, uint64_t batch_size, const ChunkSpan *following,
                         uint32_t following_count) except -1
    # have the stored bytes of all that is wanted, and the plain ones of what is needed; raises
    # what the read gets
    cdef int get(self, uint64_t batch_size) except -1
    # instead of `get`: the stored bytes at *offset* hold every chunk of the fetch, in whole
    cdef int take_stored(self, uint64_t offset, bytearray stored) except -1
    # decode the rest, write all to the cache file and set the bits; whether all that is needed is
    # there now. Nobody looks at chunks that came along after it.
    cdef bint keep(self) except -1
    cdef const Chunk *find(self, uint32_t index) noexcept nogil
    # give up every claim that is left; resumes who waits
    cdef void release(self) noexcept nogil
    # the last call: free every buffer and leave the blob; bytes that it asked of the backend
    cdef uint64_t drop(self) except? 0

    cdef bint take_along(self, uint32_t index, const ChunkPlace *place,
                         const uint8_t *digest) except -1
    cdef uint32_t bring_remnant(self, uint32_t index, Window *window,
                                uint64_t most) except? 0xffffffff
    cdef int bring_after(self, uint32_t first, Window *window, uint32_t mates) except -1
    cdef uint32_t bring_before(self, uint32_t index, Window *window,
                               uint32_t mates) except? 0xffffffff
    cdef uint32_t remnant_start(self, uint32_t index, const Window *window,
                                uint64_t most) noexcept nogil
    cdef int bring_mates(self) except -1
    cdef int bring_mates_from(self, uint32_t index, const ChunkPlace *unit, int step,
                              uint32_t needed) except -1
    cdef int decode_needed(self, uint32_t first) except -1
    cdef int decode(self, uint32_t i, uint32_t first, uint32_t count, bint needed) except -1
    cdef bint distrust_bad(self) except -1
    cdef bint renew_table(self) except -1
    cdef int get_range(self, const Range *wanted) except -1
    cdef int get_exactly(self, uint32_t first, uint32_t count) except -1
    cdef int read_range(self, const Range *wanted) except -1
    cdef uint32_t wanted_in(self, const Range *wanted) noexcept nogil
    cdef int take_range(self, const Range *wanted, bytearray raw) except -1
    cdef int lay_out(self, uint32_t start, uint32_t count, uint32_t state) except -1
    cdef bint is_pending(self, uint32_t i) noexcept nogil
    cdef bint needs_room(self, uint32_t i, uint32_t state) noexcept nogil
    cdef bint is_in_hand(self, uint32_t i) noexcept nogil
    cdef bint adjoins(self, uint32_t i) noexcept nogil
    cdef int place_run(self, uint32_t start, uint32_t end) except -1
    cdef uint32_t slice_end(self, uint32_t start, uint32_t limit) noexcept nogil
    cdef int keep_slice(self, uint32_t i, uint32_t start, uint32_t end) except -1
    cdef int keep_chunks(self, uint32_t i, uint32_t limit) except -1
    cdef bint is_keepable(self, uint32_t i) noexcept nogil
    cdef bint belong_together(self, uint32_t i, uint32_t j) noexcept nogil
    cdef int store_run(self, uint32_t start, uint32_t end) except? -1
    cdef const uint8_t *stored_bytes(self, const Chunk *chunk) except NULL
    cdef int store_stored(self, uint32_t start, uint32_t end) except? -1
    cdef int store_staged(self, uint32_t start, uint32_t end) except? -1
    cdef int stage(self, uint32_t start, uint32_t end, bytearray staging) except -1
    cdef int store(self, uint32_t start, uint32_t end, uint64_t offset, const uint8_t *data,
                   uint64_t size) except? -1
    cdef int store_vouched(self, uint32_t start, uint32_t end, uint64_t offset,
                           const uint8_t *data, uint64_t size) noexcept nogil
