"""The units of many chunks, and large chunks, that were decoded and checked last.

For blobs whose reads are not answered straight from a file of plain bytes.

Without a cache, or with one of stored bytes, a file of some KiB out of a gzip layer costs a
stretch of one or two MiB, and the next file the same one again: reading v6-estargz-ref twice took
33 s, with the last units at hand 7. Shared by all blobs, guarded by the GIL.
"""

from libc.stdint cimport uint32_t, uint64_t

cdef list recent = []           # (blob, number of the unit, plain bytes), the latest last
cdef uint64_t recent_bytes = 0


cdef bytearray find(object blob, uint32_t index):
    cdef Py_ssize_t i
    for i in range(len(recent) - 1, -1, -1):
        row = recent[i]
        if row[0] is blob and row[1] == index:
            recent.append(recent.pop(i))
            return row[2]
    return None


cdef int remember(object blob, uint32_t index, bytearray plain) except -1:
    global recent_bytes
    if find(blob, index) is not None:
        return 0
    recent.append((blob, index, plain))
    recent_bytes += len(plain)
    # One alone may be larger (16 MiB at most): a read of 128 KiB would decode all of it again.
    while recent_bytes > RECENT_BYTES and len(recent) > 1:
        recent_bytes -= len(recent.pop(0)[2])
    return 0


cdef int forget(object blob) except -1:
    global recent_bytes
    cdef Py_ssize_t i
    for i in range(len(recent) - 1, -1, -1):
        if recent[i][0] is blob:
            recent_bytes -= len(recent.pop(i)[2])
    return 0


def find_unit(blob, uint32_t index):
    """The plain bytes of unit *index* of *blob*, None when they are not at hand."""
    return find(blob, index)


def remember_unit(blob, uint32_t index, bytearray plain):
    """Keep *plain*, the bytes of unit *index*, at the cost of those that were not used lately."""
    remember(blob, index, plain)


def forget_units(blob):
    """Let go of the units of *blob*."""
    forget(blob)
