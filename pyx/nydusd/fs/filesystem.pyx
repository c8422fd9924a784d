"""The interface behind which every file system stands, and its version for plain Python.

`Filesystem` answers nothing by itself. `PyFilesystem` turns each operation into a call of a Python
method, with the GIL: for what is rare (pseudo directories) or whose work is Python's anyway.
Called from the carrier's worker threads, many at a time.
"""

from libc.errno cimport EIO, ENODATA, ENOENT, ERANGE
from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memcpy

from nydusd.cache.target cimport READ_ANSWERED, READ_MISSING, ReadTarget, add_segment
from nydusd.fs.op cimport (
    OP_DONE, OP_UNKNOWN, AttrOp, DirOp, LinkOp, ListedEntry, LookupOp, OpenOp, ReadOp, StatfsOp,
    XattrOp,
)
from nydusd.rafs.bootstrap cimport Attributes

from nydusd.base.errors import errno_of


cdef class Filesystem:
    """A file system that knows no operation; *root_ino* is the inode its mountpoint shows."""

    cdef int lookup(self, LookupOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int getattr(self, AttrOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int readlink(self, LinkOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int open(self, OpenOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int release(self, OpenOp *op) noexcept nogil:
        return OP_DONE

    cdef int read(self, ReadOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int fetch(self, ReadOp *op) noexcept nogil:
        return -EIO

    cdef int readdir(self, DirOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int xattr(self, XattrOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef int statfs(self, StatfsOp *op) noexcept nogil:
        return OP_UNKNOWN


cdef int refusal(BaseException exc) noexcept:
    """`-errno` for *exc*: an `OSError` is an answer like any other, all else is logged."""
    if isinstance(exc, OSError) and exc.errno:
        return -<int>exc.errno
    return -<int>errno_of(exc)


cdef int fill(Attributes *attr, object stat) except -1:
    """Turn the `Stat` of a Python file system into the struct."""
    cdef double mtime = stat.mtime
    attr.ino = stat.ino
    attr.size = stat.size
    attr.blocks = stat.blocks
    attr.mtime = <int64_t>mtime
    attr.mtime_nsec = <unsigned int>((mtime - <double>attr.mtime) * 1e9)
    attr.mode = stat.mode
    attr.nlink = stat.nlink
    attr.uid = stat.uid
    attr.gid = stat.gid
    attr.rdev = stat.rdev
    return 0


cdef int put(bytes value, char *buf, size_t room, size_t *length) except? -1:
    """Copy *value* out; only its length when *room* is 0; `-ERANGE` when it is longer."""
    length[0] = len(value)
    if room == 0:
        return 0
    if length[0] > room:
        return -ERANGE
    memcpy(buf, <const char *>value, length[0])
    return 0


cdef class PyFilesystem(Filesystem):
    """Operations as methods; an `OSError` is the answer, other exceptions are logged and EIO.

    A subclass calls `set_root` and overrides what it has. Reads run on the threads that may wait.
    """

    def set_root(self, unsigned long long root_ino):
        """Set the inode that the mountpoint shows; before the file system is mounted."""
        self.root_ino = root_ino

    def find(self, ino, name):
        """The `Stat` of *name* in directory *ino*, or None."""
        return None

    def stat(self, ino):
        """The `Stat` of *ino*."""
        raise OSError(ENOENT, "no such inode")

    def read_link(self, ino):
        """The target of the symbolic link *ino*."""
        raise OSError(22, "not a symbolic link")

    def open_file(self, ino, flags):
        """A handle for the file *ino*."""
        return 0

    def open_directory(self, ino, flags):
        """A handle for the directory *ino*."""
        return 0

    def close_file(self, ino, handle):
        """Forget a handle of `open_file`."""

    def close_directory(self, ino, handle):
        """Forget a handle of `open_directory`."""

    def read_file(self, ino, handle, offset, size):
        """At most *size* bytes of *ino* at *offset*; may wait."""
        raise OSError(EIO, "nothing to read")

    def entries(self, ino, offset):
        """Every `Entry` of directory *ino* that comes after *offset*, 0 = all."""
        raise OSError(20, "not a directory")

    def get_xattr(self, ino, name):
        """The value of the extended attribute *name*."""
        raise OSError(ENODATA, "no such attribute")

    def list_xattrs(self, ino):
        """The names of all extended attributes."""
        return []

    def inode_count(self):
        """What statfs shows as the number of files."""
        return 0

    cdef int lookup(self, LookupOp *op) noexcept with gil:
        try:
            stat = self.find(op.ino, op.name[:op.name_len])
            if stat is None:
                return -ENOENT
            fill(&op.attr, stat)
            op.entry_valid = op.attr_valid = stat.valid
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int getattr(self, AttrOp *op) noexcept with gil:
        try:
            stat = self.stat(op.ino)
            fill(&op.attr, stat)
            op.attr_valid = stat.valid
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int readlink(self, LinkOp *op) noexcept with gil:
        try:
            return put(self.read_link(op.ino), op.buf, op.room, &op.length)
        except BaseException as exc:
            return refusal(exc)

    cdef int open(self, OpenOp *op) noexcept with gil:
        try:
            if op.directory:
                op.handle = self.open_directory(op.ino, op.flags)
            else:
                op.handle = self.open_file(op.ino, op.flags)
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int release(self, OpenOp *op) noexcept with gil:
        try:
            if op.directory:
                self.close_directory(op.ino, op.handle)
            else:
                self.close_file(op.ino, op.handle)
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int read(self, ReadOp *op) noexcept nogil:
        return READ_MISSING     # Python code may wait: not on a worker

    cdef int fetch(self, ReadOp *op) noexcept with gil:
        cdef bytes data
        cdef ReadTarget *target = &op.target
        cdef int rc
        try:
            data = self.read_file(op.ino, op.handle, op.offset, op.size)
            rc = add_segment(target, <const char *>data, min(<size_t>len(data), op.size))
            if rc != 0:
                return rc
            with nogil:
                target.answer(target, 0)
        except BaseException as exc:
            return refusal(exc)
        return READ_ANSWERED

    cdef int readdir(self, DirOp *op) noexcept with gil:
        cdef ListedEntry listed
        cdef bytes name
        try:
            for entry in self.entries(op.ino, op.offset):
                name = entry.name
                listed.name = name
                listed.name_len = len(name)
                listed.node_id = 0
                listed.shown_ino = op.node_base | <uint64_t>entry.ino
                listed.next_offset = entry.next_offset
                listed.kind = entry.kind
                listed.has_attr = False
                if op.emit(op, &listed) != 0:
                    break
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int xattr(self, XattrOp *op) noexcept with gil:
        try:
            if op.name == NULL:
                value = b"".join([name + b"\0" for name in self.list_xattrs(op.ino)])
            else:
                value = self.get_xattr(op.ino, op.name[:op.name_len])
            return put(value, op.buf, op.room, &op.length)
        except BaseException as exc:
            return refusal(exc)

    cdef int statfs(self, StatfsOp *op) noexcept with gil:
        try:
            op.files = self.inode_count()
            op.block_size = 512
            op.name_max = 255
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE
