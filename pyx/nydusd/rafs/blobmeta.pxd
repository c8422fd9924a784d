# A blob's CI array (v6): where each chunk lies, compressed and plain.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.zran_table cimport ZranTable

cdef enum:
    CHUNK_ZRAN = 0x100              # of ChunkPlace.flags alone: a piece of a gzip stream
    CHUNK_SHARES_UNIT = 0x108       # CHUNK_BATCH | CHUNK_ZRAN

# The place of one chunk, and of its **stored unit**: what is fetched and decoded as a whole. Most
# chunks are a unit each. A batch, or a stretch of a gzip stream between two points of entry (zran),
# is one unit of many chunks, which all have the unit's stored place and the number of its context.
# Flags are CHUNK_* of rafs/bootstrap.pxd and CHUNK_ZRAN.
cdef struct ChunkPlace:
    uint64_t compressed_offset      # of the unit in the blob file
    uint64_t uncompressed_offset    # of the chunk in the plain blob and the cache file
    uint32_t compressed_size        # of the unit as stored, encryption included; never 0
    uint32_t uncompressed_size      # of the chunk
    uint32_t flags
    uint32_t crc32                  # with CHUNK_HAS_CRC
    uint32_t context_index          # CHUNK_SHARES_UNIT: number of the unit, else 0
    uint32_t context_offset         # CHUNK_SHARES_UNIT: of the chunk in the unit's plain bytes
    uint32_t context_size           # CHUNK_SHARES_UNIT: plain bytes of the unit, else 0

cdef class BlobMeta:
    cdef Mapping file                       # plain CI array, then anything (contexts, header)
    cdef readonly uint32_t count            # chunks
    cdef readonly uint64_t compressed_end   # end of the chunk data in the blob file ("D")
    cdef readonly uint64_t uncompressed_end  # plain size of the blob, on a multiple of 4096
    cdef readonly uint32_t chunk_size       # largest plain size of a chunk
    cdef bint version2                      # entries of 24 bytes, else of 16
    # the table of batches or zran contexts in `file`, as the header has it; 0 = none
    cdef readonly uint64_t contexts_offset
    cdef readonly uint64_t contexts_size    # bytes, dictionaries included
    cdef readonly uint32_t contexts_count
    cdef readonly ZranTable zran            # of a zran blob, else None
    cdef bint batches                       # entries may be of batches
    cdef bint encrypted                     # the blob is
    cdef bint members                       # chunks are gzip members of unknown stored size

    cdef bint is_damaged(self) noexcept nogil

    # 0; -EINVAL no such chunk; -EIO the entry is broken, or the file was cut under the mapping. Any
    # thread.
    cdef int chunk(self, uint32_t index, ChunkPlace *out) noexcept nogil
    cdef int load_v1(self, uint32_t index, ChunkPlace *out) noexcept nogil
    cdef int load_v2(self, uint32_t index, ChunkPlace *out) noexcept nogil
    cdef int load_zran(self, uint64_t data, ChunkPlace *out) noexcept nogil
    cdef int load_batch(self, uint64_t data, ChunkPlace *out) noexcept nogil
