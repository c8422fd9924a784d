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

cdef struct Chunk:
    uint32_t index          # in its blob
    uint32_t state
    ChunkPlace place
    const uint8_t *digest   # 32 bytes, or NULL; borrowed from the bootstrap or the digest table
    uint8_t *plain          # until the fetch ends; room for its bytes
    uint32_t run            # chunks of one run lie in `plain` as in the cache file

# A run of stored bytes, and the chunks [first, first + count) of the sorted array in it.
cdef struct Range:
    uint64_t offset
    uint64_t size
    uint32_t first
    uint32_t count

# Sort by place in the blob and join doubles (their states are or-ed); chunks that are left.
cdef uint32_t sort_chunks(Chunk *chunks, uint32_t count) noexcept nogil
# Those of *chunks* (sorted) that are WANTED and not had yet as ranges; how many. *ranges* has
# room for *count*.
cdef uint32_t merge_ranges(const Chunk *chunks, uint32_t count, uint64_t batch_size,
                           Range *ranges) noexcept nogil
cdef uint64_t range_limit(uint64_t batch_size) noexcept nogil
# Most bytes between two chunks that are fetched and thrown away
cdef uint64_t gap_limit(uint64_t batch_size) noexcept nogil
