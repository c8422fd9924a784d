# Stored bytes of chunks, from a backend or the cache file, to checked plain bytes.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.plan cimport Chunk
from nydusd.codec.compression cimport Piece

# All of *chunks* are sorted. An ordinary chunk is decoded into `plain`, which the caller has set;
# the chunks of a shared unit are given theirs here.
cdef class Decoder:
    cdef CachedBlob blob
    cdef list buffers           # owners of what `plain` of chunks points to, until the fetch ends
    cdef dict reasons           # chunk index -> why it is BAD
    cdef uint64_t allowed       # bytes of `cache.allowance` that the fetch holds

    # what the cache file answers is READY or PLAIN afterwards; how many are not
    cdef uint32_t look_up(self, Chunk *chunks, uint32_t count) except? 0xffffffff
    # decode and check those that are *needed*, or the others. *stored*: the bytes of the blob from
    # *offset* on, which hold every WANTED one.
    cdef int decode(self, Chunk *chunks, uint32_t count, const uint8_t *stored, uint64_t offset,
                    bint needed) except -1
    # `ChunkCorrupt` for the first needed chunk that is bad
    cdef int raise_bad(self, const Chunk *chunks, uint32_t count) except -1

    # wait until the shared units among the WANTED of *chunks* may be held in memory
    cdef int reserve(self, const Chunk *chunks, uint32_t count) except -1
    # let go of all buffers
    cdef int drop(self) except -1

    cdef bint is_here(self, const Chunk *chunk) noexcept nogil
    cdef int load(self, Chunk *chunk) except -1
    cdef bint keeps_no_plain(self) noexcept nogil
    cdef bint is_large(self, const Chunk *chunk) noexcept nogil
    cdef bint recall(self, Chunk *chunk) except -1
    cdef int keep_at_hand(self, const Chunk *chunk) except -1
    cdef bint from_recent(self, Chunk *chunks, uint32_t count) except -1
    cdef int load_stored(self, Chunk *chunks, uint32_t count) except -1
    cdef uint32_t split(self, Chunk *chunks, uint32_t count, const uint8_t *stored,
                        uint64_t offset, bint needed, Piece *pieces,
                        uint32_t *owners) except? 0xffffffff
    cdef int decode_pieces(self, Chunk *chunks, uint32_t count, const uint8_t *stored,
                           uint64_t offset, bint needed) except -1
    cdef int decode_shared(self, Chunk *chunks, uint32_t count, const uint8_t *stored) except -1
    cdef int give(self, Chunk *chunks, uint32_t count, bytearray plain) except -1
    cdef int check(self, Chunk *chunk) except -1
    cdef int mark_bad(self, Chunk *chunk, str reason) except -1
