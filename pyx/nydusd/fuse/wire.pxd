# The kernel's FUSE ABI, protocol 7.45: each struct stated once (linux: include/uapi/linux/fuse.h,
# Documentation/filesystems/fuse). Native byte order; offsets are from the start of the struct.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    WIRE_MAJOR = 7
    WIRE_MINOR = 45

    # requests
    FUSE_LOOKUP = 1
    FUSE_FORGET = 2             # no reply
    FUSE_GETATTR = 3
    FUSE_SETATTR = 4
    FUSE_READLINK = 5
    FUSE_SYMLINK = 6
    FUSE_MKNOD = 8
    FUSE_MKDIR = 9
    FUSE_UNLINK = 10
    FUSE_RMDIR = 11
    FUSE_RENAME = 12
    FUSE_LINK = 13
    FUSE_OPEN = 14
    FUSE_READ = 15
    FUSE_WRITE = 16
    FUSE_STATFS = 17
    FUSE_RELEASE = 18
    FUSE_FSYNC = 20
    FUSE_SETXATTR = 21
    FUSE_GETXATTR = 22
    FUSE_LISTXATTR = 23
    FUSE_REMOVEXATTR = 24
    FUSE_FLUSH = 25
    FUSE_INIT = 26
    FUSE_OPENDIR = 27
    FUSE_READDIR = 28
    FUSE_RELEASEDIR = 29
    FUSE_FSYNCDIR = 30
    FUSE_ACCESS = 34
    FUSE_CREATE = 35
    FUSE_INTERRUPT = 36         # no reply
    FUSE_DESTROY = 38
    FUSE_IOCTL = 39
    FUSE_NOTIFY_REPLY = 41      # no reply
    FUSE_BATCH_FORGET = 42      # no reply
    FUSE_FALLOCATE = 43
    FUSE_READDIRPLUS = 44
    FUSE_RENAME2 = 45
    FUSE_LSEEK = 46
    FUSE_COPY_FILE_RANGE = 47

    # notifications: the error field of a header whose unique is 0
    FUSE_NOTIFY_INVAL_INODE = 2
    FUSE_NOTIFY_INVAL_ENTRY = 3
    FUSE_NOTIFY_RESEND = 7

    # OpenOut.open_flags
    FOPEN_DIRECT_IO = 1
    FOPEN_KEEP_CACHE = 2
    FOPEN_CACHE_DIR = 8
    FOPEN_NOFLUSH = 32

    # WriteIn.write_flags, FsyncIn.sync_flags
    WRITE_KILL_SUIDGID = 1 << 2
    FSYNC_DATA_ONLY = 1 << 0

    # InitIn.flags, InitOut.flags
    INIT_ASYNC_READ = 1 << 0
    INIT_BIG_WRITES = 1 << 5
    INIT_AUTO_INVAL_DATA = 1 << 12
    INIT_DO_READDIRPLUS = 1 << 13
    INIT_READDIRPLUS_AUTO = 1 << 14
    INIT_ASYNC_DIO = 1 << 15
    INIT_NO_OPEN_SUPPORT = 1 << 17
    INIT_PARALLEL_DIROPS = 1 << 18
    INIT_MAX_PAGES = 1 << 22
    INIT_CACHE_SYMLINKS = 1 << 23
    INIT_NO_OPENDIR_SUPPORT = 1 << 24
    INIT_EXPLICIT_INVAL_DATA = 1 << 25
    INIT_HANDLE_KILLPRIV_V2 = 1 << 28
    INIT_EXT = 1 << 30

    # sizes of shorter structs that older kernels send or expect
    INIT_IN_BEFORE_36 = 16
    INIT_OUT_BEFORE_5 = 8
    INIT_OUT_BEFORE_23 = 24

cdef packed struct InHeader:    # 40 bytes, before every request
    uint32_t len                # +0   of the request, this header included
    uint32_t opcode             # +4
    uint64_t unique             # +8   bit 63: sent again to the successor of a daemon
    uint64_t node_id            # +16
    uint32_t uid                # +24
    uint32_t gid                # +28
    uint32_t pid                # +32
    uint16_t total_extlen       # +36  of extensions, in 8-byte units
    uint16_t padding            # +38

cdef packed struct OutHeader:   # 16 bytes, before every reply and notification
    uint32_t len                # +0
    int32_t error               # +4   0, -errno, or the code of a notification
    uint64_t unique             # +8

cdef packed struct Attr:        # 88 bytes
    uint64_t ino                # +0
    uint64_t size               # +8
    uint64_t blocks             # +16  512 bytes each
    uint64_t atime              # +24
    uint64_t mtime              # +32
    uint64_t ctime              # +40
    uint32_t atime_nsec         # +48
    uint32_t mtime_nsec         # +52
    uint32_t ctime_nsec         # +56
    uint32_t mode               # +60
    uint32_t nlink              # +64
    uint32_t uid                # +68
    uint32_t gid                # +72
    uint32_t rdev               # +76
    uint32_t blksize            # +80
    uint32_t flags              # +84

cdef packed struct EntryOut:    # 128 bytes
    uint64_t node_id            # +0   0 = no such name, and that may be remembered
    uint64_t generation         # +8
    uint64_t entry_valid        # +16  seconds
    uint64_t attr_valid         # +24  seconds
    uint32_t entry_valid_nsec   # +32
    uint32_t attr_valid_nsec    # +36
    Attr attr                   # +40

cdef packed struct AttrOut:     # 104 bytes
    uint64_t attr_valid         # +0   seconds
    uint32_t attr_valid_nsec    # +8
    uint32_t padding            # +12
    Attr attr                   # +16

cdef packed struct GetattrIn:   # 16 bytes
    uint32_t flags              # +0
    uint32_t padding            # +4
    uint64_t handle             # +8

cdef packed struct OpenIn:      # 8 bytes
    uint32_t flags              # +0   O_*
    uint32_t open_flags         # +4

cdef packed struct OpenOut:     # 16 bytes
    uint64_t handle             # +0
    uint32_t open_flags         # +8   FOPEN_*
    int32_t backing_id          # +12

cdef packed struct ReadIn:      # 40 bytes; also of READDIR and READDIRPLUS
    uint64_t handle             # +0
    uint64_t offset             # +8
    uint32_t size               # +16
    uint32_t read_flags         # +20
    uint64_t lock_owner         # +24
    uint32_t flags              # +32  O_* of the file
    uint32_t padding            # +36

cdef packed struct ReleaseIn:   # 24 bytes
    uint64_t handle             # +0
    uint32_t flags              # +8
    uint32_t release_flags      # +12
    uint64_t lock_owner         # +16

cdef packed struct GetxattrIn:  # 8 bytes; also of LISTXATTR
    uint32_t size               # +0   room of the caller, 0 = only the length is wanted
    uint32_t padding            # +4

cdef packed struct GetxattrOut:     # 8 bytes: the answer to a size of 0
    uint32_t size               # +0
    uint32_t padding            # +4

cdef packed struct StatfsOut:   # 80 bytes
    uint64_t blocks             # +0
    uint64_t free_blocks        # +8
    uint64_t available_blocks   # +16
    uint64_t files              # +24
    uint64_t free_files         # +32
    uint32_t block_size         # +40
    uint32_t name_max           # +44
    uint32_t fragment_size      # +48
    uint32_t padding            # +52
    uint32_t spare[6]           # +56

cdef packed struct ForgetIn:    # 8 bytes
    uint64_t count              # +0

cdef packed struct ForgetOne:   # 16 bytes; of BATCH_FORGET, after a count and padding
    uint64_t node_id            # +0
    uint64_t count              # +8

cdef packed struct SetattrIn:   # 88 bytes
    uint32_t valid              # +0   as fs/op.pxd has SET_*
    uint32_t padding            # +4
    uint64_t handle             # +8
    uint64_t size               # +16
    uint64_t lock_owner         # +24
    uint64_t atime              # +32
    uint64_t mtime              # +40
    uint64_t ctime              # +48
    uint32_t atime_nsec         # +56
    uint32_t mtime_nsec         # +60
    uint32_t ctime_nsec         # +64
    uint32_t mode               # +68
    uint32_t unused             # +72
    uint32_t uid                # +76
    uint32_t gid                # +80
    uint32_t unused_too         # +84

cdef packed struct MknodIn:     # 16 bytes, then the name
    uint32_t mode               # +0
    uint32_t rdev               # +4
    uint32_t umask              # +8   taken off the mode by the kernel
    uint32_t padding            # +12

cdef packed struct MkdirIn:     # 8 bytes, then the name
    uint32_t mode               # +0
    uint32_t umask              # +4

cdef packed struct CreateIn:    # 16 bytes, then the name; the answer: EntryOut and OpenOut
    uint32_t flags              # +0   O_*
    uint32_t mode               # +4
    uint32_t umask              # +8
    uint32_t open_flags         # +12

cdef packed struct RenameIn:    # 8 bytes, then both names
    uint64_t new_parent         # +0

cdef packed struct Rename2In:   # 16 bytes, then both names
    uint64_t new_parent         # +0
    uint32_t flags              # +8   RENAME_*
    uint32_t padding            # +12

cdef packed struct LinkIn:      # 8 bytes, then the name
    uint64_t node_id            # +0

cdef packed struct WriteIn:     # 40 bytes, then the data
    uint64_t handle             # +0
    uint64_t offset             # +8
    uint32_t size               # +16
    uint32_t write_flags        # +20  WRITE_*
    uint64_t lock_owner         # +24
    uint32_t flags              # +32  O_* of the file
    uint32_t padding            # +36

cdef packed struct WriteOut:    # 8 bytes; also of COPY_FILE_RANGE
    uint32_t size               # +0
    uint32_t padding            # +4

cdef packed struct FlushIn:     # 24 bytes
    uint64_t handle             # +0
    uint32_t unused             # +8
    uint32_t padding            # +12
    uint64_t lock_owner         # +16

cdef packed struct FsyncIn:     # 16 bytes; also of FSYNCDIR
    uint64_t handle             # +0
    uint32_t sync_flags         # +8   FSYNC_*
    uint32_t padding            # +12

cdef packed struct SetxattrIn:  # 8 bytes (its longer form is not negotiated), name and value
    uint32_t size               # +0   of the value
    uint32_t flags              # +4   XATTR_*

cdef packed struct AccessIn:    # 8 bytes
    uint32_t mask               # +0
    uint32_t padding            # +4

cdef packed struct FallocateIn:     # 32 bytes
    uint64_t handle             # +0
    uint64_t offset             # +8
    uint64_t length             # +16
    uint32_t mode               # +24  FALLOC_FL_*
    uint32_t padding            # +28

cdef packed struct LseekIn:     # 24 bytes
    uint64_t handle             # +0
    uint64_t offset             # +8
    uint32_t whence             # +16
    uint32_t padding            # +20

cdef packed struct LseekOut:    # 8 bytes
    uint64_t offset             # +0

cdef packed struct CopyRangeIn:     # 56 bytes
    uint64_t handle             # +0
    uint64_t offset             # +8
    uint64_t target             # +16  node id
    uint64_t target_handle      # +24
    uint64_t target_offset      # +32
    uint64_t length             # +40
    uint64_t flags              # +48

cdef packed struct Dirent:      # 24 bytes, then the name, padded with zeros to 8 bytes
    uint64_t ino                # +0
    uint64_t next_offset        # +8
    uint32_t name_len           # +16
    uint32_t kind               # +20  S_IFMT bits >> 12

cdef packed struct InitIn:      # 64 bytes; 16 up to minor 35
    uint32_t major              # +0
    uint32_t minor              # +4
    uint32_t max_readahead      # +8
    uint32_t flags              # +12
    uint32_t flags2             # +16  bits 32.. of the flags, with INIT_EXT
    uint32_t unused[11]         # +20

cdef packed struct InitOut:     # 64 bytes
    uint32_t major              # +0
    uint32_t minor              # +4
    uint32_t max_readahead      # +8
    uint32_t flags              # +12
    uint16_t max_background     # +16
    uint16_t congestion_threshold   # +18
    uint32_t max_write          # +20
    uint32_t time_gran          # +24  ns
    uint16_t max_pages          # +28  of one request
    uint16_t map_alignment      # +30
    uint32_t flags2             # +32
    uint32_t max_stack_depth    # +36
    uint16_t request_timeout    # +40
    uint16_t unused[11]         # +42

cdef packed struct InvalInodeOut:   # 24 bytes
    uint64_t node_id            # +0
    int64_t offset              # +8   -1 = attributes only
    int64_t length              # +16  0 = to the end

cdef packed struct InvalEntryOut:   # 16 bytes, then the name and a NUL
    uint64_t parent             # +0
    uint32_t name_len           # +8
    uint32_t flags              # +12
