"""Where the walk of a check is, from the root down, and its findings by the paths they are about.

A report that is full ends the walk. `check_tree` goes in and out of directories.
"""

cimport cython
from libc.stdint cimport uint32_t
from libc.stdlib cimport calloc, free

PATH_SHOWN_MAX = 1024       # bytes of a path in a finding

cdef enum:
    NAMES_SHOWN_MAX = 64    # of a path in a finding


@cython.final
cdef class Trail:
    """No directory is open; findings go to `report.add(path, text)`, a full one ends the walk."""

    def __cinit__(self, report):
        self.report = report
        self.stack = <Frame *>calloc(TRAIL_ROOM, sizeof(Frame))
        if self.stack == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.stack)

    cdef bytes path(self, const char *name, uint32_t name_len):
        cdef uint32_t i
        cdef uint32_t first = 0
        parts = []
        if self.depth > NAMES_SHOWN_MAX:
            first = self.depth - NAMES_SHOWN_MAX
        for i in range(first, self.depth):
            if self.stack[i].name_len:
                parts.append(self.stack[i].name[:self.stack[i].name_len])
        if name_len:
            parts.append(name[:name_len])
        path = b"/" + b"/".join(parts)
        if first:
            path = b"/..." + path
        if len(path) > PATH_SHOWN_MAX:
            path = path[:PATH_SHOWN_MAX // 4] + b"..." + path[-PATH_SHOWN_MAX // 2:]
        return path

    cdef int add(self, const char *name, uint32_t name_len, object what) except -1:
        self.report.add(self.path(name, name_len), what)
        if self.report.full:
            self.ended = True
        return 0
