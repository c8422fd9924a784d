# The metadata area of a v6 bootstrap.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.rafs.write_chunks cimport ChunkTable
from nydusd.rafs.write_tree cimport TreeNode

cdef class ImageBytes:
    cdef bytearray data
    cdef uint8_t *base          # borrowed from data
    cdef uint64_t size
    cdef uint64_t shift         # what the tables before the metadata area take
    cdef ChunkTable chunks
    cdef uint32_t chunk_size
    cdef uint32_t root_number

    # write every inode of the tree, with what belongs to it
    cdef int put_tree(self, TreeNode root) except -1

    cdef uint8_t *room(self, uint64_t offset, uint64_t size) except NULL
    cdef int put_node(self, TreeNode node, TreeNode parent) except -1
    cdef uint32_t put_chunks(self, TreeNode node) except? 0xffffffff
    cdef int put_xattrs(self, TreeNode node, uint8_t *at) except -1
    cdef int put_target(self, TreeNode node) except -1
    cdef int put_directory(self, TreeNode node, TreeNode parent) except -1
    cdef int put_block(self, uint8_t *at, uint64_t size, list entries, Py_ssize_t first,
                       Py_ssize_t end) except -1
