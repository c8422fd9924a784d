# Chunks that a check has met, and whether their places go together.
from libc.stddef cimport size_t
from libc.stdint cimport uint32_t, uint64_t

from nydusd.rafs.bootstrap cimport Bootstrap, ChunkSpan

# Where one chunk lies.
cdef struct MetChunk:
    uint64_t plain_offset       # in the plain blob
    uint64_t stored_offset      # in the blob file
    uint32_t blob_index
    uint32_t chunk_index
    uint32_t plain_size
    uint32_t stored_size        # 0 = not told, or shared by several chunks (batch)

cdef class MetChunks:
    cdef MetChunk *chunks       # owned
    cdef size_t count
    cdef size_t room

    cdef int add(self, const MetChunk *chunk) except -1
    # sorted by blob and index, one of each; lines about those that are told differently
    cdef list unite(self)
    # after `unite`: NULL when no such chunk was met
    cdef const MetChunk *find(self, uint32_t blob_index, uint32_t chunk_index) noexcept nogil
