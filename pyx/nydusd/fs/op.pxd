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
    OP_UNKNOWN = 5          # this file system does not know the operation
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
    bint direct_io          # reads and writes pass the kernel's page cache by
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

cdef enum:
    CHANGE_ATTRIBUTES = 1
    MAKE_NODE = 2
    MAKE_DIRECTORY = 3
    MAKE_SYMLINK = 4
    MAKE_LINK = 5
    CREATE_FILE = 6
    REMOVE_FILE = 7
    REMOVE_DIRECTORY = 8
    RENAME = 9
    WRITE_FILE = 10
    FLUSH_FILE = 11
    SYNC_FILE = 12
    SYNC_DIRECTORY = 13
    SET_XATTR = 14
    REMOVE_XATTR = 15
    ALLOCATE = 16
    SEEK = 17
    COPY_RANGE = 18
    CHECK_ACCESS = 19

    # what of an inode is to be changed, ChangeOp.valid; as the kernel has it (FATTR_*)
    SET_MODE = 1 << 0
    SET_UID = 1 << 1
    SET_GID = 1 << 2
    SET_SIZE = 1 << 3
    SET_ATIME = 1 << 4
    SET_MTIME = 1 << 5
    SET_HANDLE = 1 << 6         # `handle` is an open file of the inode
    SET_ATIME_NOW = 1 << 7
    SET_MTIME_NOW = 1 << 8
    SET_KILL_PRIVILEGES = 1 << 11   # set-user-id and set-group-id bits go

# What only a file system that can be changed knows: one struct for all of it, since none of it is
# on the way of a read. Which fields a kind has, `fs.change` says.
cdef struct ChangeOp:
    uint32_t kind
    uint64_t node_id            # of the inode, or of the directory that `name` is in
    uint64_t ino
    uint64_t other_id           # the new directory, the inode to link, the target of a copy; or 0
    uint64_t other_ino          # set by the mount table, of the same mount
    uint64_t handle
    uint64_t other_handle
    const char *name
    size_t name_len
    const char *new_name        # of a rename; of a symbolic link: where it leads
    size_t new_name_len
    uint32_t uid                # the caller
    uint32_t gid
    uint32_t pid
    uint32_t mode
    uint32_t rdev
    uint32_t flags              # O_*, RENAME_*, XATTR_*, FALLOC_FL_*, SEEK_*, R_OK and the like
    bint data_only              # of a sync
    bint kills_privileges       # of a write: set-user-id and set-group-id bits go
    uint32_t valid              # SET_*
    uint64_t offset
    uint64_t other_offset
    uint64_t length             # also the size to set
    int64_t atime               # seconds since the epoch
    int64_t mtime
    uint32_t atime_nsec
    uint32_t mtime_nsec
    const uint8_t *data         # borrowed from the request: what to write, the value of an xattr
    size_t data_len
    Attributes attr             # of the inode that was made or changed; attr.ino 0: none is told
    uint64_t child_id           # its node id; set by the mount table
    uint64_t entry_valid
    uint64_t attr_valid
    OpenOp opened               # of a created file
    uint64_t done               # bytes written or copied; the place that was sought
