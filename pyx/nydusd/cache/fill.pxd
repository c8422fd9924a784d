# Chunks that nobody waits for, on their way to local disk.
from libc.stdint cimport uint64_t

from nydusd.cache.fetch cimport Fetch

cdef class Filling:
    cdef Fetch fetch
    cdef readonly uint64_t size
    cdef readonly bint bound

# What *fetch* has claimed, had from the backend; `BackendError`
cdef Filling got(Fetch fetch, uint64_t batch_size)
# Give up what *fetch* holds; bytes that it asked of the backend
cdef uint64_t end(Fetch fetch) except? 0
