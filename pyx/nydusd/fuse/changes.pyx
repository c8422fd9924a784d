"""Requests that change a file system: from their bytes to a `ChangeOp`, and its answer back.

Every length is checked: a carrier may be a guest. Any thread, without the GIL.
"""

from libc.errno cimport (
    EINVAL, EIO, ENOSYS, ENXIO, EOPNOTSUPP, EPERM, EROFS,
)
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from nydusd.fs.op cimport (
    ALLOCATE, CHANGE_ATTRIBUTES, CHECK_ACCESS, COPY_RANGE, CREATE_FILE, FLUSH_FILE, MAKE_DIRECTORY,
    MAKE_LINK, MAKE_NODE, MAKE_SYMLINK, OP_DONE, OP_UNKNOWN, REMOVE_DIRECTORY, REMOVE_FILE,
    REMOVE_XATTR, RENAME, SEEK, SET_XATTR, SYNC_DIRECTORY, SYNC_FILE, WRITE_FILE, AttrOp, ChangeOp,
    OpenOp,
)
from nydusd.fs.stats cimport FOPS
from nydusd.fs.vfs cimport Vfs
from nydusd.fuse.call cimport ANSWERED, Call, fill_attr, fill_entry, fill_open
from nydusd.fuse.reply cimport reply_data
from nydusd.fuse.wire cimport (
    FSYNC_DATA_ONLY, FUSE_ACCESS, FUSE_COPY_FILE_RANGE, FUSE_CREATE, FUSE_FALLOCATE, FUSE_FLUSH,
    FUSE_FSYNC, FUSE_FSYNCDIR, FUSE_LINK, FUSE_LSEEK, FUSE_MKDIR, FUSE_MKNOD, FUSE_REMOVEXATTR,
    FUSE_RENAME, FUSE_RENAME2, FUSE_RMDIR, FUSE_SETATTR, FUSE_SETXATTR, FUSE_SYMLINK, FUSE_UNLINK,
    FUSE_WRITE, WRITE_KILL_SUIDGID, AccessIn, AttrOut, CopyRangeIn, CreateIn, EntryOut,
    FallocateIn, FlushIn, FsyncIn, LinkIn, LseekIn, LseekOut, MkdirIn, MknodIn, OpenOut, Rename2In,
    RenameIn, SetattrIn, SetxattrIn, WriteIn, WriteOut,
)

cdef extern from "<unistd.h>" nogil:
    int SEEK_DATA, SEEK_HOLE

cdef enum:
    COPY_AT_ONCE = 1 << 30      # the answer's count has 32 bits, and somebody waits for it

# The part of a request that is not taken yet.
cdef struct Rest:
    const uint8_t *data
    size_t size

cdef struct CreateOut:
    EntryOut entry
    OpenOut opened


cdef bint is_change(uint32_t opcode) noexcept nogil:
    return kind_of(opcode) != 0


cdef uint32_t kind_of(uint32_t opcode) noexcept nogil:
    if opcode == FUSE_WRITE:
        return WRITE_FILE
    elif opcode == FUSE_FLUSH:
        return FLUSH_FILE
    elif opcode == FUSE_SETATTR:
        return CHANGE_ATTRIBUTES
    elif opcode == FUSE_CREATE:
        return CREATE_FILE
    elif opcode == FUSE_MKNOD:
        return MAKE_NODE
    elif opcode == FUSE_MKDIR:
        return MAKE_DIRECTORY
    elif opcode == FUSE_SYMLINK:
        return MAKE_SYMLINK
    elif opcode == FUSE_LINK:
        return MAKE_LINK
    elif opcode == FUSE_UNLINK:
        return REMOVE_FILE
    elif opcode == FUSE_RMDIR:
        return REMOVE_DIRECTORY
    elif opcode == FUSE_RENAME or opcode == FUSE_RENAME2:
        return RENAME
    elif opcode == FUSE_FSYNC:
        return SYNC_FILE
    elif opcode == FUSE_FSYNCDIR:
        return SYNC_DIRECTORY
    elif opcode == FUSE_SETXATTR:
        return SET_XATTR
    elif opcode == FUSE_REMOVEXATTR:
        return REMOVE_XATTR
    elif opcode == FUSE_FALLOCATE:
        return ALLOCATE
    elif opcode == FUSE_LSEEK:
        return SEEK
    elif opcode == FUSE_COPY_FILE_RANGE:
        return COPY_RANGE
    elif opcode == FUSE_ACCESS:
        return CHECK_ACCESS
    return 0


cdef bint take(Rest *rest, void *out, size_t size) noexcept nogil:
    """Copy the next *size* bytes to *out*; false when there are not as many."""
    if size > rest.size:
        return False
    memcpy(out, rest.data, size)
    rest.data += size
    rest.size -= size
    return True


cdef bint take_text(Rest *rest, const char **text, size_t *length) noexcept nogil:
    """Take a string that is not empty, and the NUL behind it."""
    cdef const uint8_t *end = NULL
    if rest.size > 0:
        end = <const uint8_t *>memchr(rest.data, 0, rest.size)
    if end == NULL or end == rest.data:
        return False
    text[0] = <const char *>rest.data
    length[0] = end - rest.data
    rest.size -= length[0] + 1
    rest.data = end + 1
    return True


cdef bint take_name(Rest *rest, const char **name, size_t *length) noexcept nogil:
    """Take a string that can be the name of something in a directory."""
    if not take_text(rest, name, length) or memchr(name[0], b'/', length[0]) != NULL:
        return False
    return not (name[0][0] == b'.' and (
        length[0] == 1 or (length[0] == 2 and name[0][1] == b'.')))


cdef bint take_data(Rest *rest, ChangeOp *op, size_t size) noexcept nogil:
    """Take *size* bytes that stay where they are."""
    if size > rest.size:
        return False
    op.data = rest.data
    op.data_len = size
    return True


cdef bint read_setattr(Rest *rest, ChangeOp *op) noexcept nogil:
    cdef SetattrIn asked
    if not take(rest, &asked, sizeof(SetattrIn)):
        return False
    op.valid = asked.valid
    op.handle = asked.handle
    op.length = asked.size
    op.mode = asked.mode
    op.uid = asked.uid
    op.gid = asked.gid
    op.atime = <int64_t>asked.atime
    op.mtime = <int64_t>asked.mtime
    op.atime_nsec = asked.atime_nsec
    op.mtime_nsec = asked.mtime_nsec
    return True


cdef bint read_making(uint32_t opcode, Rest *rest, ChangeOp *op) noexcept nogil:
    """Requests that give a name to an inode."""
    cdef MknodIn node
    cdef MkdirIn directory
    cdef CreateIn created
    cdef LinkIn link
    if opcode == FUSE_MKNOD:
        if not take(rest, &node, sizeof(MknodIn)):
            return False
        op.mode = node.mode
        op.rdev = node.rdev
    elif opcode == FUSE_MKDIR:
        if not take(rest, &directory, sizeof(MkdirIn)):
            return False
        op.mode = directory.mode
    elif opcode == FUSE_CREATE:
        if not take(rest, &created, sizeof(CreateIn)):
            return False
        op.flags = created.flags
        op.mode = created.mode
    elif opcode == FUSE_LINK:
        if not take(rest, &link, sizeof(LinkIn)) or link.node_id == 0:
            return False
        op.other_id = link.node_id
    if not take_name(rest, &op.name, &op.name_len):
        return False
    return opcode != FUSE_SYMLINK or take_text(rest, &op.new_name, &op.new_name_len)


cdef bint read_rename(uint32_t opcode, Rest *rest, ChangeOp *op) noexcept nogil:
    cdef RenameIn plain
    cdef Rename2In flagged
    if opcode == FUSE_RENAME:
        if not take(rest, &plain, sizeof(RenameIn)):
            return False
        op.other_id = plain.new_parent
    else:
        if not take(rest, &flagged, sizeof(Rename2In)):
            return False
        op.other_id = flagged.new_parent
        op.flags = flagged.flags
    return (op.other_id != 0 and take_name(rest, &op.name, &op.name_len)
            and take_name(rest, &op.new_name, &op.new_name_len))


cdef bint read_writing(uint32_t opcode, Rest *rest, ChangeOp *op) noexcept nogil:
    """WRITE, FLUSH, FSYNC, FSYNCDIR."""
    cdef WriteIn written
    cdef FlushIn flushed
    cdef FsyncIn synced
    if opcode == FUSE_WRITE:
        if not take(rest, &written, sizeof(WriteIn)):
            return False
        op.handle = written.handle
        op.offset = written.offset
        op.flags = written.flags
        op.kills_privileges = written.write_flags & WRITE_KILL_SUIDGID != 0
        return take_data(rest, op, written.size)
    if opcode == FUSE_FLUSH:
        if not take(rest, &flushed, sizeof(FlushIn)):
            return False
        op.handle = flushed.handle
        return True
    if not take(rest, &synced, sizeof(FsyncIn)):
        return False
    op.handle = synced.handle
    op.data_only = synced.sync_flags & FSYNC_DATA_ONLY != 0
    return True


cdef bint read_xattr(uint32_t opcode, Rest *rest, ChangeOp *op) noexcept nogil:
    cdef SetxattrIn asked
    if opcode == FUSE_REMOVEXATTR:
        return take_text(rest, &op.name, &op.name_len)
    if not take(rest, &asked, sizeof(SetxattrIn)):
        return False
    op.flags = asked.flags
    return take_text(rest, &op.name, &op.name_len) and take_data(rest, op, asked.size)


cdef bint read_place(uint32_t opcode, Rest *rest, ChangeOp *op) noexcept nogil:
    """FALLOCATE, LSEEK, COPY_FILE_RANGE, ACCESS."""
    cdef FallocateIn allocated
    cdef LseekIn sought
    cdef CopyRangeIn copied
    cdef AccessIn access
    if opcode == FUSE_FALLOCATE:
        if not take(rest, &allocated, sizeof(FallocateIn)):
            return False
        op.handle = allocated.handle
        op.offset = allocated.offset
        op.length = allocated.length
        op.flags = allocated.mode
    elif opcode == FUSE_LSEEK:
        if not take(rest, &sought, sizeof(LseekIn)):
            return False
        op.handle = sought.handle
        op.offset = sought.offset
        op.flags = sought.whence
    elif opcode == FUSE_COPY_FILE_RANGE:
        if not take(rest, &copied, sizeof(CopyRangeIn)) or copied.target == 0:
            return False
        op.handle = copied.handle
        op.offset = copied.offset
        op.other_id = copied.target
        op.other_handle = copied.target_handle
        op.other_offset = copied.target_offset
        op.length = min(copied.length, <uint64_t>COPY_AT_ONCE)
    else:
        if not take(rest, &access, sizeof(AccessIn)):
            return False
        op.flags = access.mask
    return True


cdef bint read_change(const Call *call, ChangeOp *op) noexcept nogil:
    """Fill *op* from the request; false when that is shorter than it says."""
    cdef uint32_t opcode = call.header.opcode
    cdef Rest rest
    rest.data = call.arg
    rest.size = call.arg_len
    memset(op, 0, sizeof(ChangeOp))
    op.kind = kind_of(opcode)
    op.node_id = call.header.node_id
    op.uid = call.header.uid
    op.gid = call.header.gid
    op.pid = call.header.pid
    if opcode == FUSE_SETATTR:
        return read_setattr(&rest, op)
    elif opcode in (FUSE_MKNOD, FUSE_MKDIR, FUSE_CREATE, FUSE_LINK, FUSE_SYMLINK):
        return read_making(opcode, &rest, op)
    elif opcode == FUSE_UNLINK or opcode == FUSE_RMDIR:
        return take_name(&rest, &op.name, &op.name_len)
    elif opcode == FUSE_RENAME or opcode == FUSE_RENAME2:
        return read_rename(opcode, &rest, op)
    elif opcode in (FUSE_WRITE, FUSE_FLUSH, FUSE_FSYNC, FUSE_FSYNCDIR):
        return read_writing(opcode, &rest, op)
    elif opcode == FUSE_SETXATTR or opcode == FUSE_REMOVEXATTR:
        return read_xattr(opcode, &rest, op)
    return read_place(opcode, &rest, op)


cdef int seek_unknowing(Vfs vfs, const Call *call, const ChangeOp *op) noexcept nogil:
    """SEEK_DATA and SEEK_HOLE in a file that is all data, as far as anybody knows."""
    cdef AttrOp found
    cdef LseekOut out
    cdef int rc
    found.node_id = op.node_id
    rc = vfs.getattr(&found)
    if rc != OP_DONE:
        return rc
    if op.offset >= found.attr.size:
        return -ENXIO
    if op.flags == <uint32_t>SEEK_DATA:
        out.offset = op.offset
    elif op.flags == <uint32_t>SEEK_HOLE:
        out.offset = found.attr.size
    else:
        return -EINVAL
    reply_data(call.port, call.header.unique, &out, sizeof(LseekOut))
    return ANSWERED


cdef int refuse_unknown(Vfs vfs, const Call *call, const ChangeOp *op,
                        bint is_shared) noexcept nogil:
    """The answer of a file system that does not know the operation.

    The kernel takes ENOSYS for some of them as said for the whole connection, and then pretends
    (fsync) or does without. Where other file systems may be mounted, each file gets what the kernel
    would make of it.
    """
    cdef uint32_t kind = op.kind
    if not is_shared:
        return -ENOSYS
    if kind == SYNC_FILE or kind == SYNC_DIRECTORY or kind == CHECK_ACCESS:
        return 0
    elif kind == SEEK:
        return seek_unknowing(vfs, call, op)
    elif kind in (SET_XATTR, REMOVE_XATTR, ALLOCATE, COPY_RANGE):
        return -EOPNOTSUPP
    elif kind == CREATE_FILE:
        return -EROFS
    elif kind == MAKE_LINK:
        return -EPERM
    elif kind == RENAME and call.header.opcode == FUSE_RENAME2:
        return -EINVAL
    return -ENOSYS      # FLUSH among them: there is nothing that could get lost


cdef int reply_made(Vfs vfs, const Call *call, const ChangeOp *op) noexcept nogil:
    """Tell of an inode that was made, and of the file that was opened with it."""
    cdef CreateOut out
    cdef size_t size = sizeof(EntryOut)
    fill_entry(&out.entry, op.child_id, &op.attr, op.entry_valid, op.attr_valid)
    if op.kind == CREATE_FILE:
        fill_open(&out.opened, &op.opened)
        size = sizeof(CreateOut)
    return reply_data(call.port, call.header.unique, &out, size)


cdef int reply_attributes(const Call *call, const ChangeOp *op) noexcept nogil:
    cdef AttrOut out
    out.attr_valid = op.attr_valid
    out.attr_valid_nsec = out.padding = 0
    fill_attr(&out.attr, &op.attr)
    return reply_data(call.port, call.header.unique, &out, sizeof(AttrOut))


cdef void take_back(Vfs vfs, const ChangeOp *op) noexcept nogil:
    """Forget what the kernel could not be told of: it has given the request up."""
    cdef OpenOp opened = op.opened
    if op.kind == CREATE_FILE:
        opened.node_id = op.child_id
        vfs.release(&opened)
    vfs.forget(op.child_id, 1, FOPS)


cdef int answer_made(Vfs vfs, const Call *call, const ChangeOp *op) noexcept nogil:
    if op.attr.ino == 0:
        return -EIO
    if reply_made(vfs, call, op) < 0:
        take_back(vfs, op)
    return ANSWERED


cdef int serve_change(Vfs vfs, const Call *call, bint is_shared) noexcept nogil:
    cdef ChangeOp op
    cdef WriteOut written
    cdef LseekOut sought
    cdef int rc
    if not read_change(call, &op):
        return -EINVAL
    rc = vfs.change(&op)
    if rc == OP_UNKNOWN or rc == -ENOSYS:
        return refuse_unknown(vfs, call, &op, is_shared)
    if rc != OP_DONE:
        return rc
    if op.kind in (MAKE_NODE, MAKE_DIRECTORY, MAKE_SYMLINK, MAKE_LINK, CREATE_FILE):
        return answer_made(vfs, call, &op)
    elif op.kind == CHANGE_ATTRIBUTES:
        if op.attr.ino == 0:
            return -EIO
        reply_attributes(call, &op)
    elif op.kind == WRITE_FILE or op.kind == COPY_RANGE:
        written.size = <uint32_t>min(
            op.done, op.data_len if op.kind == WRITE_FILE else op.length)
        written.padding = 0
        reply_data(call.port, call.header.unique, &written, sizeof(WriteOut))
    elif op.kind == SEEK:
        sought.offset = op.done
        reply_data(call.port, call.header.unique, &sought, sizeof(LseekOut))
    else:
        return 0
    return ANSWERED
