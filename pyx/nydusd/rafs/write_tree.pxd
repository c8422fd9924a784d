# The tree that the writers turn into a bootstrap, and the arithmetic both of them do.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef inline uint64_t align(uint64_t value, uint64_t unit) noexcept nogil:
    """*value* rounded up to a multiple of *unit*."""
    return (value + unit - 1) // unit * unit


cdef class TreeNode:
    cdef public bytes name          # without slashes; the root's is b"/"
    cdef public bytes path          # of the source file; empty when it comes from a bootstrap
    cdef public uint32_t mode       # st_mode with type bits
    cdef public uint32_t uid
    cdef public uint32_t gid
    cdef public uint32_t rdev       # Linux 32-bit encoding
    cdef public uint64_t size       # bytes; symlink: of its target; directories: set by writers
    cdef public int64_t mtime       # seconds
    cdef public uint32_t mtime_nsec
    cdef public bytes target        # of a symlink
    cdef public list xattrs         # (full name, value), sorted by name; empty for none
    cdef public list children       # TreeNode of a directory, None for all else
    cdef public object identity     # equal for all names of one inode; None = one name
    cdef public bint is_lower       # comes from the parent image: its chunks exist already
    cdef public bint is_opaque      # of an upper layer: hides what the lower layers have in it
    # set by number_nodes
    cdef public uint32_t index      # 1 for the root, then as rafs-format tells
    cdef public uint32_t ino        # index of the first name
    cdef public uint32_t parent     # ino of the parent; 0 for the root
    cdef public uint32_t nlink
    cdef public uint32_t child_index
    cdef public TreeNode first_name     # first name of a hard-linked inode; None when this is it
    # set by who packs the data: rows of a ChunkTable's references
    cdef public uint64_t first_reference
    cdef public uint32_t chunk_count
    cdef public bytes digest        # v5: 32 bytes
    # set by layout_v6
    cdef uint64_t offset            # of the inode, in the metadata area as if it began at 0
    cdef uint64_t data_offset       # of its full blocks, likewise
    cdef uint64_t data_size         # bytes of directory entries or of the target
    cdef uint32_t area_size         # bytes of inode and attribute area
    cdef uint8_t layout             # V6_LAYOUT_*
