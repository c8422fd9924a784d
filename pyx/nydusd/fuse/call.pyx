"""One request while it is served, and what several answers are made of. Any thread."""

from libc.stdint cimport uint64_t
from libc.string cimport memset

from nydusd.fs.op cimport Attributes, OpenOp
from nydusd.fuse.wire cimport (
    FOPEN_CACHE_DIR, FOPEN_DIRECT_IO, FOPEN_KEEP_CACHE, FOPEN_NOFLUSH, Attr, EntryOut, OpenOut,
)

cdef enum:
    BLOCK_SIZE = 4096


cdef void fill_attr(Attr *out, const Attributes *attr) noexcept nogil:
    memset(out, 0, sizeof(Attr))
    out.ino = attr.ino
    out.size = attr.size
    out.blocks = attr.blocks
    out.atime = <uint64_t>attr.atime
    out.mtime = <uint64_t>attr.mtime
    out.ctime = <uint64_t>attr.ctime
    out.atime_nsec = attr.atime_nsec
    out.mtime_nsec = attr.mtime_nsec
    out.ctime_nsec = attr.ctime_nsec
    out.mode = attr.mode
    out.nlink = attr.nlink
    out.uid = attr.uid
    out.gid = attr.gid
    out.rdev = attr.rdev
    out.blksize = BLOCK_SIZE


cdef void fill_entry(EntryOut *out, uint64_t node_id, const Attributes *attr,
                     uint64_t entry_valid, uint64_t attr_valid) noexcept nogil:
    out.node_id = node_id
    out.generation = 0
    out.entry_valid = entry_valid
    out.attr_valid = attr_valid
    out.entry_valid_nsec = out.attr_valid_nsec = 0
    fill_attr(&out.attr, attr)


cdef void fill_open(OpenOut *out, const OpenOp *op) noexcept nogil:
    memset(out, 0, sizeof(OpenOut))
    out.handle = op.handle
    if op.keep_cache:
        out.open_flags |= FOPEN_KEEP_CACHE
    if op.directory and op.cache_dir:
        out.open_flags |= FOPEN_CACHE_DIR
    if op.direct_io:
        out.open_flags |= FOPEN_DIRECT_IO
    if op.stateless and not op.directory:
        # A kernel before 5.17 asks once, is told ENOSYS, and does not ask again for any mount.
        out.open_flags |= FOPEN_NOFLUSH
