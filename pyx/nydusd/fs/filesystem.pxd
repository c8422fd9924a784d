# What a file system answers. One method per operation: 0, OP_UNKNOWN or -errno; of a read also the
# results of cache/target.pxd. No method blocks on a backend but `fetch`.
from libc.stdint cimport uint64_t

from nydusd.fs.op cimport (
    AttrOp, ChangeOp, DirOp, LinkOp, LookupOp, OpenOp, ReadOp, StatfsOp, XattrOp,
)
from nydusd.fs.stats cimport FsStats

cdef class Filesystem:
    cdef readonly unsigned long long root_ino
    cdef readonly FsStats stats     # raised by the mount table; None: nothing is counted
    cdef int lookup(self, LookupOp *op) noexcept nogil
    cdef int getattr(self, AttrOp *op) noexcept nogil
    cdef int readlink(self, LinkOp *op) noexcept nogil
    cdef int open(self, OpenOp *op) noexcept nogil
    cdef int release(self, OpenOp *op) noexcept nogil
    cdef int read(self, ReadOp *op) noexcept nogil
    # from a thread that may wait: READ_ANSWERED, READ_AGAIN or -errno
    cdef int fetch(self, ReadOp *op) noexcept nogil
    cdef int readdir(self, DirOp *op) noexcept nogil
    cdef int xattr(self, XattrOp *op) noexcept nogil
    cdef int statfs(self, StatfsOp *op) noexcept nogil
    # every kind of change, see fs/op.pxd
    cdef int change(self, ChangeOp *op) noexcept nogil
    # The kernel has dropped *count* of the times that it was told of *ino*.
    cdef void forget_ino(self, uint64_t ino, uint64_t count) noexcept nogil

# The same operations in plain Python, behind a gate that takes the GIL.
cdef class PyFilesystem(Filesystem):
    cdef bint lists_attributes      # set once before it is mounted
