# How many bytes fetches may hold at a time for units that many chunks share.
from libc.stdint cimport uint64_t

cdef enum:
    ALLOWANCE_BYTES = 40 << 20

# *size* bytes for the calling thread: waits while others hold too many, but not when the thread
# holds some already. With the GIL.
cdef int take(uint64_t size) except -1
# the *size* bytes that this thread took are free again
cdef int give_back(uint64_t size) except -1
