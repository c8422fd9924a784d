# Requests that change a file system, or that only file systems know that can be changed.
from libc.stdint cimport uint32_t

from nydusd.fs.vfs cimport Vfs
from nydusd.fuse.call cimport Call

cdef bint is_change(uint32_t opcode) noexcept nogil
# ANSWERED, or the code of an answer without data. *is_shared*: file systems of several kinds may be
# mounted, so that what one does not know must not be answered with an ENOSYS that the kernel
# remembers for all.
cdef int serve_change(Vfs vfs, const Call *call, bint is_shared) noexcept nogil
