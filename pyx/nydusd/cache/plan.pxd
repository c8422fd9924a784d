# From the chunks that a read needs to the byte ranges that a backend is asked for.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.rafs.blobmeta cimport ChunkPlace

cdef enum:
    # Chunk.state
    CHUNK_NEEDED = 1        # the read asks for it; others come along (amplification, prefetch)
    CHUNK_MINE = 2          # claimed by this fetch
    CHUNK_WANTED = 4        # to be had from the backend by this fetch
    CHUNK_PLAIN = 8         # `plain` holds its bytes, checked
    CHUNK_BAD = 16          # its bytes were had and are not what the image promises
    CHUNK_READY = 32        # the cache file has it: answered from there
    CHUNK_KEPT = 64         # written to the cache file, its bit set
    CHUNK_DECODED = 128     # `plain` is filled, not checked yet
    CHUNK_HAD = 256         # its stored bytes came from the backend

cdef struct Chunk:
    uint32_t index          # in its blob
    uint32_t state
    ChunkPlace place
    const uint8_t *digest   # 32 bytes, or NULL; borrowed from the bootstrap or the digest table
    uint8_t *plain          # until the fetch ends; room for its bytes
    uint32_t run            # chunks of one run lie in `plain` as in the cache file; 0 = none

# Whether *chunk* was had, is no worse than it should be, and not kept yet
cdef bint is_in_hand(const Chunk *chunk) noexcept nogil
# Whether nothing but padding can lie, in the plain blob, between *last* and the *chunk* after it:
# what might be another chunk is not. *aligned*: all chunks of the blob begin on pages.
cdef bint adjoins(const Chunk *last, const Chunk *chunk, bint aligned) noexcept nogil

# A run of stored bytes, and the chunks [first, first + count) of the sorted array in it.
cdef struct Range:
    uint64_t offset
    uint64_t size
    uint32_t first
    uint32_t count

# Sort by place in the blob and join doubles (their states are or-ed); chunks that are left.
cdef uint32_t sort_chunks(Chunk *chunks, uint32_t count) noexcept nogil
# Whether both are chunks of one stored unit that several chunks share
cdef bint same_unit(const ChunkPlace *a, const ChunkPlace *b) noexcept nogil
# End of the chunks from *start* on (sorted) that are of its stored unit; start + 1 for most
cdef uint32_t unit_end(const Chunk *chunks, uint32_t count, uint32_t start) noexcept nogil
# Those of *chunks* (sorted) that are WANTED and not had yet as ranges; how many. *ranges* has
# room for *count*. The chunks of one unit are in one range.
cdef uint32_t merge_ranges(const Chunk *chunks, uint32_t count, uint64_t batch_size,
                           Range *ranges) noexcept nogil

# The stretch of a blob that one request may cover.
cdef struct Window:
    uint64_t start
    uint64_t end
    uint64_t plain          # bytes that come out, padding included
    uint64_t batch_size
    uint64_t goal           # bytes from the start; no chunk that begins after them
    uint64_t most           # bytes from start to end; as long as a request may be
    ChunkPlace last         # the chunk that was taken in last

cdef void open_window(Window *window, const ChunkPlace *place, uint64_t batch_size) noexcept nogil
cdef void widen_window(Window *window, const ChunkPlace *place) noexcept nogil
cdef bint in_window(const Window *window, const ChunkPlace *place) noexcept nogil
# The same for a chunk that ends before the window begins; in no shared unit
cdef bint has_room_before(const Window *window, const ChunkPlace *place) noexcept nogil
cdef void widen_window_before(Window *window, const ChunkPlace *place) noexcept nogil
# Most bytes between two chunks that are fetched and thrown away
cdef uint64_t gap_limit(uint64_t batch_size) noexcept nogil
