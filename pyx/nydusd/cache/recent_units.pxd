# The units of many chunks, and large chunks, that were decoded last, for blobs whose reads are
# not answered straight from a file of plain bytes.
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    RECENT_BYTES = 8 << 20

# *blob*: any object that is this blob's alone. None when it is not among them. With the GIL.
cdef bytearray find(object blob, uint32_t index)
cdef int remember(object blob, uint32_t index, bytearray plain) except -1
cdef int forget(object blob) except -1
