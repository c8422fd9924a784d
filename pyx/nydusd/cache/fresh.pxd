# Chunks that were checked and written to the cache file a moment ago.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nydusd.rafs.blobmeta cimport ChunkPlace

cdef enum:
    FRESH_ROWS = 2048       # chunks that are remembered; a power of two
    FRESH_WAYS = 4          # rows that a chunk may be in, of which the oldest makes room
    FRESH_DIGEST_BYTES = 32
    WRITES_MAX = 32         # of our own that are followed at one time

cdef struct Stamp:
    int64_t modified_ns
    int64_t changed_ns
    int64_t size

# What an image promises of a chunk: of v5 images each tells itself what chunk *n* of a blob is.
cdef struct FreshRow:
    uint64_t offset
    uint32_t index
    uint32_t size
    uint32_t time_ms        # of the check; FRESH_ROWS of zeros vouch for nothing: size 0
    uint8_t digest[FRESH_DIGEST_BYTES]

# A write of our own that has begun; *end* 0: there is none.
cdef struct OwnWrite:
    uint64_t offset
    uint64_t end
    uint64_t foreign        # writes of other processes before it
    bint is_crossed         # another one of the same bytes ran beside it: nobody knows who was last

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass

cdef class FreshChunks:
    cdef int fd                     # borrowed
    cdef pthread_mutex_t lock       # a leaf: nothing is taken under it
    cdef int writers                # guarded by lock
    cdef Stamp known                # of the file after our last write; guarded by lock
    cdef uint64_t foreign           # `foreign_writes` that are accounted for; guarded by lock
    cdef OwnWrite writes[WRITES_MAX]    # guarded by lock
    cdef int unfollowed             # writers beyond WRITES_MAX; guarded by lock
    cdef FreshRow rows[FRESH_ROWS]  # guarded by lock

    # around each write of our own of the *size* bytes at *offset*, with its number
    cdef int begin_write(self, uint64_t offset, uint64_t size) noexcept nogil
    cdef void end_write(self, int number) noexcept nogil
    # write *number*, which is not over, has put chunk *index* at *place*, whose *digest* was right
    # (NULL: there is none to check)
    cdef void vouch(self, int number, uint32_t index, const ChunkPlace *place,
                    const uint8_t *digest) noexcept nogil
    # whether it was so a moment ago, and nobody else has changed the file since
    cdef bint vouches(self, uint32_t index, const ChunkPlace *place,
                      const uint8_t *digest) noexcept nogil
    cdef void look_at_file(self) noexcept nogil
    cdef FreshRow *row_to_use(self, const FreshRow *new) noexcept nogil
    cdef void forget(self, uint64_t offset, uint64_t end) noexcept nogil
    cdef int follow(self, uint64_t offset, uint64_t end) noexcept nogil
