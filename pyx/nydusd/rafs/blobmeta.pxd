# A blob's CI array (v6): where each chunk lies, compressed and plain.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping

# The place of one chunk. Flags are CHUNK_* of rafs/bootstrap.pxd.
cdef struct ChunkPlace:
    uint64_t compressed_offset      # in the blob file
    uint64_t uncompressed_offset    # in the plain blob and the cache file
    uint32_t compressed_size        # as stored, encryption included; never 0
    uint32_t uncompressed_size
    uint32_t flags                  # CHUNK_COMPRESSED, CHUNK_HAS_CRC
    uint32_t crc32                  # with CHUNK_HAS_CRC
    uint32_t context_index          # of a batch or zran chunk, else 0
    uint32_t context_offset         # of the chunk in its context's output

cdef class BlobMeta:
    cdef Mapping file                       # plain CI array, then anything (contexts, header)
    cdef readonly uint32_t count            # chunks
    cdef readonly uint64_t compressed_end   # end of the chunk data in the blob file ("D")
    cdef readonly uint64_t uncompressed_end  # plain size of the blob, on a multiple of 4096
    cdef readonly uint32_t chunk_size       # largest plain size of a chunk
    cdef bint version2                      # entries of 24 bytes, else of 16
    cdef bint separate                      # data and meta in two files

    # 0; -EINVAL no such chunk; -EIO the entry is broken or the file was cut under the mapping;
    # -ENOTSUP the entry needs batch, zran or encryption. Any thread.
    cdef int chunk(self, uint32_t index, ChunkPlace *out) noexcept nogil
    cdef int load_v1(self, uint32_t index, ChunkPlace *out) noexcept nogil
    cdef int load_v2(self, uint32_t index, ChunkPlace *out) noexcept nogil
