# The chunks that one fetch is about, and its claims on them.
from libc.stdint cimport uint8_t, uint32_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.decode cimport Decoder
from nydusd.cache.plan cimport Chunk
from nydusd.rafs.blobmeta cimport ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan

cdef class Claims:
    cdef CachedBlob blob
    cdef Decoder decoder        # of the same fetch
    cdef Chunk *chunks          # owned; sorted by place once `sort` has run
    cdef uint32_t count
    cdef uint32_t room
    cdef uint32_t missing       # needed chunks that are not on local disk
    cdef uint32_t wanted        # of these, the ones that this fetch gets
    cdef uint32_t cursor        # where `find` found the last one

    # have room for one chunk more, so that `add` does not fail; moves the array
    cdef int make_room(self) except -1
    # moves the array
    cdef Chunk *add(self, uint32_t index, const ChunkPlace *place, const uint8_t *digest,
                    uint32_t state) except NULL
    # a chunk that the read asks for; `ChunkCorrupt`
    cdef int need(self, const ChunkSpan *span) except -1
    cdef int sort(self) except -1
    cdef const Chunk *find(self, uint32_t index) noexcept nogil
    # what the cache file does not answer (`Decoder.look_up`) counts as missing
    cdef int look_up(self) except -1
    # claim what is needed and missing, or take it *regardless* of who else has claimed it
    cdef int claim(self, bint regardless) except -1
    cdef bint take_along(self, uint32_t index, const ChunkPlace *place,
                         const uint8_t *digest) except -1
    # give up every claim that is left; resumes who waits
    cdef void release(self) noexcept nogil
