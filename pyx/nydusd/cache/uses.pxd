# When each chunk of a blob was used last, for a cache directory whose size is limited.
from libc.stdint cimport uint32_t, uint64_t

cdef struct Use:
    uint32_t stamp      # of the last use, see `stamp_now`; 0 = not seen by this process
    uint32_t size       # bytes in the cache file
    uint64_t offset     # in the cache file

cdef class Uses:
    cdef Use *rows              # owned; memory is touched for chunks that are used
    cdef uint32_t count
    cdef readonly object room   # `cache.quota.Quota` to be asked before writing, or None
    cdef uint64_t evictions     # atomic: raised after each batch of chunks has been evicted

    # chunk *index*, which lies at *offset* of the cache file, is used now
    cdef void note(self, uint32_t index, uint64_t offset, uint32_t size) noexcept nogil
    cdef uint64_t seen(self) noexcept nogil
    cdef void raise_evictions(self) noexcept nogil
