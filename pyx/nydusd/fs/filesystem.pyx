"""The interface behind which every file system stands, and its version for plain Python.

`Filesystem` answers nothing by itself. `PyFilesystem` turns each operation into a call of a Python
method, with the GIL: for what is rare (pseudo directories) or whose work is Python's anyway.
Called from the carrier's worker threads, many at a time.
"""

from libc.errno cimport EIO, ENODATA, ENOENT, ENOSYS
from libc.stdint cimport uint64_t

from nydusd.cache.target cimport READ_ANSWERED, READ_MISSING, ReadTarget, add_segment
from nydusd.fs.change cimport call_change
from nydusd.fs.gate cimport fill, fill_opened, put, refusal
from nydusd.fs.op cimport (
    OP_DONE, OP_UNKNOWN, AttrOp, ChangeOp, DirOp, LinkOp, ListedEntry, LookupOp, OpenOp, ReadOp,
    StatfsOp, XattrOp,
)

from nydusd.fs.stat import Opened, Statistics


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

    cdef int change(self, ChangeOp *op) noexcept nogil:
        return OP_UNKNOWN

    cdef void forget_ino(self, uint64_t ino, uint64_t count) noexcept nogil:
        pass


cdef class PyFilesystem(Filesystem):
    """Operations as methods; an `OSError` is the answer, other exceptions are logged and EIO.

    A subclass calls `set_root` and overrides what it has. Reads run on the threads that may wait.
    """

    def set_root(self, unsigned long long root_ino, *, bint lists_attributes=False):
        """Set the inode that the mountpoint shows; before the file system is mounted.

        *lists_attributes*: listings may give each name's attributes, for which `find` is called.
        """
        self.root_ino = root_ino
        self.lists_attributes = lists_attributes

    def find(self, ino, name):
        """The `Stat` of *name* in directory *ino*, or None.

        Each `Stat` that is answered here or for something made counts as one: the kernel holds its
        inode until `forget` has taken as many back.
        """
        return None

    def forget(self, ino, count):
        """Take back *count* of the times that the kernel was told of *ino*; also of the root."""

    def stat(self, ino):
        """The `Stat` of *ino*."""
        raise OSError(ENOENT, "no such inode")

    def read_link(self, ino):
        """The target of the symbolic link *ino*."""
        raise OSError(22, "not a symbolic link")

    def open_file(self, ino, flags):
        """The file *ino*, `Opened`."""
        return Opened()

    def open_directory(self, ino, flags):
        """The directory *ino*, `Opened`."""
        return Opened()

    def close_file(self, ino, handle):
        """Forget a handle of `open_file` or `create_file`."""

    def close_directory(self, ino, handle):
        """Forget a handle of `open_directory`."""

    def read_file(self, ino, handle, offset, size):
        """At most *size* bytes of *ino* at *offset*; may wait."""
        raise OSError(EIO, "nothing to read")

    def entries(self, ino, handle, offset):
        """Every `Entry` of directory *ino* that comes after *offset*, 0 = all; may be endless."""
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

    def statistics(self, ino):
        """The `Statistics` of the file system that *ino* is in."""
        return Statistics(files=self.inode_count())

    # ---------------------------------------------------------------- changes
    # A file system that does not override them cannot be changed. Names are never ".", "..", or
    # with a slash. They run on a worker, which others stand in for while they wait for a disk.

    def change_attributes(self, ino, handle, changes):
        """Make `Changes` to *ino*, or to its open file *handle*; the `Stat` afterwards."""
        raise OSError(ENOSYS, "cannot be changed")

    def make_node(self, parent, name, mode, rdev, caller):
        """Make a file or special file; *mode* with type bits, the umask taken off; its `Stat`."""
        raise OSError(ENOSYS, "cannot be changed")

    def make_directory(self, parent, name, mode, caller):
        """Make a directory; its `Stat`."""
        raise OSError(ENOSYS, "cannot be changed")

    def make_symlink(self, parent, name, target, caller):
        """Make a symbolic link to *target*; its `Stat`."""
        raise OSError(ENOSYS, "cannot be changed")

    def make_link(self, ino, parent, name):
        """Give *ino* another name; its `Stat`."""
        raise OSError(ENOSYS, "cannot be changed")

    def create_file(self, parent, name, mode, flags, caller):
        """Open a file, made if it is not there: its `Stat` and `Opened`."""
        raise OSError(ENOSYS, "cannot be changed")

    def remove_file(self, parent, name):
        """Remove a name that is not a directory."""
        raise OSError(ENOSYS, "cannot be changed")

    def remove_directory(self, parent, name):
        """Remove an empty directory."""
        raise OSError(ENOSYS, "cannot be changed")

    def rename(self, parent, name, new_parent, new_name, flags):
        """Move a name; *flags*: RENAME_* of rename(2)."""
        raise OSError(ENOSYS, "cannot be changed")

    def write_file(self, ino, handle, offset, data, flags, kills_privileges):
        """Write *data*, a memoryview that is gone afterwards; how many bytes were written.

        *flags*: O_* that the file has by now, which fcntl(2) may have changed since it was opened.
        *kills_privileges*: the set-user-id and set-group-id bits are to go.
        """
        raise OSError(ENOSYS, "cannot be changed")

    def flush_file(self, ino, handle):
        """A descriptor of *handle* is being closed: tell what could not be written."""
        raise OSError(ENOSYS, "nothing to flush")

    def sync_file(self, ino, handle, data_only):
        """Bring what was written to the disk."""
        raise OSError(ENOSYS, "nothing to write")

    def sync_directory(self, ino, handle, data_only):
        """Bring the names of a directory to the disk."""
        raise OSError(ENOSYS, "nothing to write")

    def set_xattr(self, ino, name, value, flags):
        """Set an attribute to *value*, a memoryview that is gone afterwards; *flags*: XATTR_*."""
        raise OSError(ENOSYS, "cannot be changed")

    def remove_xattr(self, ino, name):
        """Remove an attribute."""
        raise OSError(ENOSYS, "cannot be changed")

    def allocate(self, ino, handle, mode, offset, length):
        """See fallocate(2)."""
        raise OSError(ENOSYS, "cannot be changed")

    def seek(self, ino, handle, offset, whence):
        """Where the next data (SEEK_DATA) or hole (SEEK_HOLE) is."""
        raise OSError(ENOSYS, "not known")

    def copy_range(self, ino, handle, offset, target, target_handle, target_offset, length):
        """Copy within this file system; how many bytes were copied."""
        raise OSError(ENOSYS, "cannot be changed")

    def check_access(self, ino, mask, caller):
        """Refuse what *caller* may not; asked only where the kernel does not look by itself."""
        raise OSError(ENOSYS, "the kernel decides")

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
            opens = self.open_directory if op.directory else self.open_file
            fill_opened(op, opens(op.ino, op.flags))
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
        try:
            for entry in self.entries(op.ino, op.handle, op.offset):
                if list_entry(self, op, entry) != 0:
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
            found = self.statistics(op.ino)
            op.blocks = found.blocks
            op.free_blocks = found.free_blocks
            op.available_blocks = found.available_blocks
            op.files = found.files
            op.free_files = found.free_files
            op.block_size = found.block_size
            op.fragment_size = found.fragment_size
            op.name_max = found.name_max
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef int change(self, ChangeOp *op) noexcept with gil:
        try:
            call_change(self, op)
        except BaseException as exc:
            return refusal(exc)
        return OP_DONE

    cdef void forget_ino(self, uint64_t ino, uint64_t count) noexcept with gil:
        try:
            self.forget(ino, count)
        except BaseException as exc:
            refusal(exc)


cdef int list_entry(PyFilesystem filesystem, DirOp *op, object entry) except -1:
    """Hand one entry to the carrier: 0, 1 no room."""
    cdef ListedEntry listed
    cdef bytes name = entry.name
    cdef int rc
    listed.name = name
    listed.name_len = len(name)
    listed.node_id = 0
    listed.shown_ino = op.node_base | <uint64_t>entry.ino
    listed.next_offset = entry.next_offset
    listed.kind = entry.kind
    listed.has_attr = False
    stat = None
    if op.plus and filesystem.lists_attributes and name != b"." and name != b"..":
        try:
            stat = filesystem.find(op.ino, name)
        except OSError:
            pass        # who wants to know asks for this name
    if stat is not None:
        fill(&listed.attr, stat)
        listed.node_id = listed.shown_ino = op.node_base | listed.attr.ino
        listed.entry_valid = listed.attr_valid = stat.valid
        listed.has_attr = True
    rc = op.emit(op, &listed)
    if rc != 0 and stat is not None:
        filesystem.forget(stat.ino, 1)      # the kernel has not been told of it
    return rc
