# Reader of v5 bootstraps.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.rafs.bootstrap cimport Bootstrap, ChunkSpan, XattrEntry
from nydusd.rafs.ondisk_v5 cimport InodeV5

# One inode record, its variable part located.
cdef struct Record:
    const InodeV5 *inode    # borrowed from the mapping
    const uint8_t *name     # borrowed from the mapping
    const uint8_t *target   # borrowed from the mapping; of a symlink
    uint64_t xattrs         # offset of the first pair in the file
    uint64_t xattrs_size    # bytes of the pairs without padding, 0 = none
    uint64_t chunks         # offset of the chunk records in the file
    uint32_t index          # from 1
    uint32_t kind           # S_IFMT bits >> 12

cdef class BootstrapV5(Bootstrap):
    cdef uint64_t inode_table       # offset in the file
    cdef uint32_t entries           # of the inode table
    cdef int digester               # Digester
    cdef uint8_t *verified          # owned; VERIFIED_* by index, each byte atomic; NULL = not asked

    cdef int load_index(self, uint64_t index, Record *out) noexcept nogil
    cdef int load_ino(self, uint64_t ino, Record *out) noexcept nogil
    cdef int load_directory(self, uint64_t ino, Record *out) noexcept nogil
    # child number *number* of a directory
    cdef int load_child(self, const Record *directory, uint32_t number, Record *out) noexcept nogil
    cdef int check_digests(self, uint64_t directory) noexcept nogil
    # the whole chunk *number* of a regular file, as a span
    cdef int load_chunk(self, const Record *record, uint64_t number, uint64_t *file_offset,
                        ChunkSpan *span) noexcept nogil
    cdef int spans_with_holes(self, const Record *record, uint64_t offset, uint64_t size,
                              ChunkSpan *out, uint32_t room, uint32_t *count) noexcept nogil
    cdef object digest_of_record(self, const Record *record)
