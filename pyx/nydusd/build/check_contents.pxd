# What an image says of one inode beside its attributes, for the walk of a check.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.build.check_chunks cimport MetChunks
from nydusd.build.check_trail cimport Trail
from nydusd.rafs.bootstrap cimport Bootstrap, ChunkSpan
from nydusd.rafs.read_v5 cimport BootstrapV5, Record
from nydusd.rafs.read_v6 cimport BootstrapV6, Inode

cdef class ContentsCheck:
    cdef Bootstrap bootstrap
    cdef BootstrapV5 v5         # the same one, by its version
    cdef BootstrapV6 v6
    cdef MetChunks chunks       # that the bootstrap tells of
    cdef Trail trail
    cdef object tell
    cdef uint8_t *claims        # owned; a bit for each unit of the file
    cdef uint64_t claimed       # bytes
    cdef uint64_t shared        # the last inode whose data lies on other metadata
    cdef bint table             # v6: there is a chunk table

    # what only v5 has: records that are one piece, chunks with their places, digests
    cdef int visit_v5(self, const char *name, uint32_t length, uint64_t ino) except -1
    # v5: each name of a hard link has a whole record, with a digest of its own
    cdef int check_further_name(self, const char *name, uint32_t length,
                                const Record *record) except -1
    # v5: a directory's digest is made of its children's
    cdef int check_directory_digest(self, const char *name, uint32_t length,
                                    uint64_t ino) except -1
    # what only v6 has: attributes, chunk numbers and data behind inodes, or in blocks
    cdef int visit_v6(self, const char *name, uint32_t length, uint64_t ino) except -1
    cdef int check_xattrs(self, const char *name, uint32_t length, uint64_t ino) except -1

    cdef bint take_record(self, const char *name, uint32_t length,
                          const Record *record) except -1
    cdef bint take(self, const char *name, uint32_t name_len, uint64_t start, uint64_t size,
                   str what) except -1
    cdef int claim(self, uint64_t start, uint64_t size, uint64_t *at) noexcept nogil
    cdef int check_chunks_v5(self, const char *name, uint32_t length,
                             const Record *record) except -1
    cdef int read_target_v6(self, const char *name, uint32_t length, const Inode *inode) except -1
    cdef int check_chunks_v6(self, const char *name, uint32_t length, const Inode *inode) except -1
    cdef int check_target(self, const char *name, uint32_t length, const char *target,
                          uint64_t size, uint64_t told) except -1
    cdef int tell_chunk(self, const ChunkSpan *span) except -1
