"""What changes a file system: from the struct of the operation to a method, and its answer back.

Which fields of `ChangeOp` a kind has can be read here. The methods are those of `PyFilesystem`.
"""

from cpython.memoryview cimport PyMemoryView_FromMemory

from nydusd.fs.gate cimport fill, fill_opened
from nydusd.fs.op cimport (
    ALLOCATE, CHANGE_ATTRIBUTES, CHECK_ACCESS, COPY_RANGE, CREATE_FILE, FLUSH_FILE, MAKE_DIRECTORY,
    MAKE_LINK, MAKE_NODE, MAKE_SYMLINK, REMOVE_DIRECTORY, REMOVE_FILE, REMOVE_XATTR, RENAME, SEEK,
    SET_ATIME, SET_ATIME_NOW, SET_GID, SET_HANDLE, SET_KILL_PRIVILEGES, SET_MODE, SET_MTIME,
    SET_MTIME_NOW, SET_SIZE, SET_UID, SET_XATTR, SYNC_DIRECTORY, SYNC_FILE, WRITE_FILE, ChangeOp,
)

from nydusd.fs import stat as values

cdef extern from "<Python.h>":
    int PyBUF_READ

cdef enum:
    NANO = 1000000000
    PERMISSION_BITS = 0o7777


cdef bytes name_of(const ChangeOp *op):
    return op.name[:op.name_len]


cdef object caller_of(const ChangeOp *op):
    return values.Caller(op.uid, op.gid, op.pid)


cdef object changes_of(const ChangeOp *op):
    """The `Changes` that CHANGE_ATTRIBUTES asks for."""
    cdef unsigned int valid = op.valid
    atime = mtime = None
    if valid & SET_ATIME_NOW:
        atime = values.NOW
    elif valid & SET_ATIME:
        atime = <object>op.atime * NANO + op.atime_nsec
    if valid & SET_MTIME_NOW:
        mtime = values.NOW
    elif valid & SET_MTIME:
        mtime = <object>op.mtime * NANO + op.mtime_nsec
    return values.Changes(
        mode=op.mode & PERMISSION_BITS if valid & SET_MODE else None,
        uid=op.uid if valid & SET_UID else None,
        gid=op.gid if valid & SET_GID else None,
        size=op.length if valid & SET_SIZE else None,
        atime_ns=atime,
        mtime_ns=mtime,
        kills_privileges=valid & SET_KILL_PRIVILEGES != 0,
    )


cdef int tell(ChangeOp *op, object stat) except -1:
    """Put the `Stat` of what was made or changed into the answer."""
    fill(&op.attr, stat)
    op.entry_valid = op.attr_valid = stat.valid
    return 0


cdef int call_with_data(object method, ChangeOp *op, object before, object after) except -1:
    """*method(*before, data, *after)*; what it keeps of the data raises when it looks again."""
    data = PyMemoryView_FromMemory(<char *>op.data, <Py_ssize_t>op.data_len, PyBUF_READ)
    try:
        answer = method(*before, data, *after)
    finally:
        data.release()
    op.done = 0 if answer is None else answer
    return 0


cdef int make(object filesystem, ChangeOp *op) except -1:
    """The kinds that give a name to an inode."""
    cdef bytes name = name_of(op)
    if op.kind == MAKE_LINK:
        return tell(op, filesystem.make_link(op.other_ino, op.ino, name))
    caller = caller_of(op)
    if op.kind == MAKE_DIRECTORY:
        return tell(op, filesystem.make_directory(op.ino, name, op.mode, caller))
    if op.kind == MAKE_SYMLINK:
        target = op.new_name[:op.new_name_len]
        return tell(op, filesystem.make_symlink(op.ino, name, target, caller))
    if op.kind == MAKE_NODE:
        return tell(op, filesystem.make_node(op.ino, name, op.mode, op.rdev, caller))
    stat, opened = filesystem.create_file(op.ino, name, op.mode, op.flags, caller)
    fill_opened(&op.opened, opened)
    return tell(op, stat)


cdef int change_file(object filesystem, ChangeOp *op) except -1:
    """The kinds that work on an open file."""
    cdef unsigned int kind = op.kind
    if kind == WRITE_FILE:
        return call_with_data(filesystem.write_file, op, (op.ino, op.handle, op.offset),
                              (op.flags, op.kills_privileges))
    elif kind == FLUSH_FILE:
        filesystem.flush_file(op.ino, op.handle)
    elif kind == SYNC_FILE:
        filesystem.sync_file(op.ino, op.handle, op.data_only)
    elif kind == SYNC_DIRECTORY:
        filesystem.sync_directory(op.ino, op.handle, op.data_only)
    elif kind == ALLOCATE:
        filesystem.allocate(op.ino, op.handle, op.flags, op.offset, op.length)
    elif kind == SEEK:
        op.done = filesystem.seek(op.ino, op.handle, op.offset, op.flags)
    else:
        op.done = filesystem.copy_range(op.ino, op.handle, op.offset, op.other_ino, op.other_handle,
                                        op.other_offset, op.length)
    return 0


cdef int call_change(object filesystem, ChangeOp *op) except -1:
    cdef unsigned int kind = op.kind
    if kind in (MAKE_NODE, MAKE_DIRECTORY, MAKE_SYMLINK, MAKE_LINK, CREATE_FILE):
        return make(filesystem, op)
    if kind in (WRITE_FILE, FLUSH_FILE, SYNC_FILE, SYNC_DIRECTORY, ALLOCATE, SEEK, COPY_RANGE):
        return change_file(filesystem, op)
    if kind == CHANGE_ATTRIBUTES:
        handle = op.handle if op.valid & SET_HANDLE else None
        return tell(op, filesystem.change_attributes(op.ino, handle, changes_of(op)))
    elif kind == REMOVE_FILE:
        filesystem.remove_file(op.ino, name_of(op))
    elif kind == REMOVE_DIRECTORY:
        filesystem.remove_directory(op.ino, name_of(op))
    elif kind == RENAME:
        filesystem.rename(op.ino, name_of(op), op.other_ino, op.new_name[:op.new_name_len],
                          op.flags)
    elif kind == SET_XATTR:
        return call_with_data(filesystem.set_xattr, op, (op.ino, name_of(op)), (op.flags,))
    elif kind == REMOVE_XATTR:
        filesystem.remove_xattr(op.ino, name_of(op))
    elif kind == CHECK_ACCESS:
        filesystem.check_access(op.ino, op.flags, caller_of(op))
    return 0
