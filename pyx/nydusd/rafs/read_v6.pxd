# Reader of v6 bootstraps: an EROFS walker plus the RAFS tables.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nydusd.rafs.bootstrap cimport Bootstrap, ChunkSpan, XattrEntry

# One inode, compact or extended, in the same terms.
cdef struct Inode:
    uint64_t offset         # of the inode in the file
    uint64_t xattrs         # offset of its attribute area
    uint64_t xattrs_size    # bytes, 0 = none
    uint64_t tail           # offset behind the attribute area
    uint64_t size
    int64_t mtime
    uint32_t mtime_nsec
    uint32_t mode
    uint32_t nlink
    uint32_t uid
    uint32_t gid
    uint32_t content        # block address, chunk format or rdev
    uint32_t layout         # V6_LAYOUT_*

# One block of a directory.
cdef struct DirBlock:
    const uint8_t *data     # borrowed from the mapping
    uint32_t size           # bytes
    uint32_t count          # entries

# S_IFMT bits >> 12 for a directory entry's type, 0 for one that is unknown
cdef uint32_t kind_of_type(uint8_t file_type) noexcept nogil
# the name of entry *index* of a block; 0, -EIO
cdef int entry_name(const DirBlock *block, uint32_t index, const char **name,
                    uint32_t *name_len) noexcept nogil

cdef class BootstrapV6(Bootstrap):
    cdef uint32_t block_bits
    cdef uint64_t meta_offset       # of nid 0 in the file
    cdef uint64_t slots             # nids are below this
    cdef bint tarfs                 # chunks lie plain in a tar

    cdef int load_inode(self, uint64_t nid, Inode *out) noexcept nogil
    # a block of an inode's data, plain or inline: its bytes and their number
    cdef int data_block(self, const Inode *inode, uint64_t block, const uint8_t **data,
                        uint32_t *size) noexcept nogil
    cdef int load_block(self, const Inode *directory, uint64_t block, DirBlock *out) noexcept nogil
    cdef int search_block(self, const DirBlock *block, const char *name, size_t name_len,
                          uint64_t *nid) noexcept nogil
    cdef int load_chunk(self, const Inode *inode, uint64_t index, uint64_t offset, uint64_t length,
                        ChunkSpan *span) noexcept nogil
