# Where the walk of a check is, and its findings.
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    TRAIL_ROOM = 4097       # open directories: `DEPTH_MAX` and the root

# A directory on the way of the walk.
cdef struct Frame:
    uint64_t ino
    uint64_t parent
    uint64_t child          # v5: number of the next child; v6: its index in the block
    uint64_t block          # v6
    const char *name        # its own, borrowed from the mapping
    const char *last        # of the entry before, borrowed
    uint32_t name_len
    uint32_t last_len
    bint dot                # v6: `.` and `..` were met
    bint dotdot

cdef class Trail:
    cdef object report
    cdef Frame *stack           # owned; TRAIL_ROOM
    cdef uint32_t depth         # open directories
    cdef bint ended             # the walk cannot go on

    # the path of *name* in the innermost directory; a long one without its middle
    cdef bytes path(self, const char *name, uint32_t name_len)
    # a finding about *name* in the innermost directory, about that itself without a name
    cdef int add(self, const char *name, uint32_t name_len, object what) except -1
