# All chunks an image under construction knows, and which files refer to them.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.rafs.ondisk_v5 cimport ChunkRecord
from nydusd.rafs.write_tree cimport TreeNode

cdef class ChunkTable:
    cdef ChunkRecord *records           # owned; distinct chunks by id
    cdef uint32_t *references           # owned; ids, a file's side by side
    cdef uint32_t *own                  # owned; ids of the own blob's chunks by chunk index
    cdef size_t record_count, record_room
    cdef size_t reference_count, reference_room
    cdef size_t own_count, own_room
    cdef dict known                     # digest -> id
    cdef readonly int own_blob_index    # -1 until the first own chunk
    cdef readonly uint64_t uncompressed_end     # plain bytes of the own blob so far
    cdef readonly uint64_t compressed_end       # stored bytes of the own blob so far
    cdef uint32_t alignment
    cdef size_t stored_count            # own chunks whose place in the blob is known

    cdef int grow_records(self) except -1
    cdef int grow_references(self, size_t more) except -1
    cdef int grow_own(self) except -1
    # raises unless *node* (a regular file) refers to as many chunks as its size needs
    cdef int check_references(self, TreeNode node, uint32_t chunk_size) except -1
    cdef uint32_t append(self, const ChunkRecord *record) except? 0xffffffff
