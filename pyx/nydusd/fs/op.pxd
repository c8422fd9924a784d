# One struct per FUSE operation: what is asked, and where the answer goes.
#
# A carrier fills the upper part and calls the mount table, which turns node ids into a slot and an
# ino and calls that slot's file system; the answer is filled in place. Node ids: slot and ino, see
# fs/vfs.pxd. Strings are borrowed from the request until the reply.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

# Carriers know file systems alone: what of cache and rafs travels in an op, they take from here.
from nydusd.cache.target cimport (
    READ_AGAIN, READ_ANSWERED, READ_CLAIMED, READ_DONE, READ_MISSING, ReadTarget, iovec,
)
from nydusd.rafs.bootstrap cimport SPAN_ROOM, Attributes

cdef enum:
    OP_DONE = 0
    OP_UNKNOWN = 5          # this file system leaves the operation to the Python handlers
    # results 1..4 of a read are those of cache/target.pxd

cdef struct LookupOp:
    uint64_t node_id        # of the parent
    uint64_t ino            # the same for the file system; set by the mount table
    const char *name
    size_t name_len
    Attributes attr         # attr.ino 0 = there is no such name, and that may be remembered
    uint64_t child_id       # node id of the child; set by the mount table
    uint64_t entry_valid    # seconds the kernel may keep the name, and the attributes
    uint64_t attr_valid

cdef struct AttrOp:
    uint64_t node_id
    uint64_t ino
    Attributes attr
    uint64_t attr_valid

cdef struct OpenOp:
    uint64_t node_id
    uint64_t ino
    uint32_t flags          # O_*
    bint directory
    uint64_t handle
    bint keep_cache
    bint cache_dir
    bint stateless          # nothing is behind the handle: the kernel may be told never to ask

cdef struct ReadOp:
    uint64_t node_id
    uint64_t ino
    uint64_t handle
    uint64_t offset
    uint32_t size
    int64_t began_ns        # when it came, monotonic; set by the mount table if it counts reads
    ReadTarget target

cdef struct LinkOp:
    uint64_t node_id
    uint64_t ino
    char *buf               # the target goes here
    size_t room
    size_t length

# One entry of a listing, as the carrier gets it.
cdef struct ListedEntry:
    const char *name
    size_t name_len
    uint64_t node_id        # 0 for "." and ".."
    uint64_t shown_ino      # d_ino
    uint64_t next_offset
    uint32_t kind           # S_IFMT bits >> 12; 0 = unknown
    bint has_attr
    Attributes attr         # with has_attr
    uint64_t entry_valid
    uint64_t attr_valid

cdef struct DirOp:
    uint64_t node_id
    uint64_t ino
    uint64_t handle
    uint64_t offset         # 0, or next_offset of an earlier entry
    bint plus               # the carrier wants attributes with each entry
    uint64_t node_base      # what to OR into an ino to get its node id; set by the mount table
    # 0 = taken, 1 = no room (stop, not an error)
    int (*emit)(DirOp *, const ListedEntry *) noexcept nogil
    void *owner

cdef struct XattrOp:
    uint64_t node_id
    uint64_t ino
    const char *name        # getxattr; NULL = list the names
    size_t name_len
    char *buf
    size_t room             # 0 = only the length is wanted
    size_t length

cdef struct StatfsOp:
    uint64_t node_id
    uint64_t ino
    uint64_t blocks
    uint64_t free_blocks
    uint64_t available_blocks
    uint64_t files
    uint64_t free_files
    uint32_t block_size
    uint32_t fragment_size
    uint32_t name_max
