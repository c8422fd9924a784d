# Which chunks of a blob are on local disk, and which are being fetched by this process.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping

cdef class ChunkMap:
    cdef uint8_t *bits              # atomic pointer: into `file`, or to `own`
    cdef uint8_t *own               # owned: bits of this process alone; NULL while `file` is used
    cdef uint8_t *claims            # owned; atomic bytes; one bit a chunk, as in `bits`
    cdef size_t own_size            # bytes of `own` and of `claims`
    cdef Mapping file               # None: in memory only
    cdef int all_ready              # atomic: the marker was set when the file was opened
    cdef uint64_t counter           # for parking: raised whenever claims are given up
    cdef readonly uint32_t count    # chunks

    cdef bint is_ready(self, uint32_t index) noexcept nogil
    cdef bint is_claimed(self, uint32_t index) noexcept nogil
    # the bytes have been written before; no-op past the last chunk
    cdef void set_ready(self, uint32_t index) noexcept nogil
    # true: the caller has it now and must release it; false: somebody else has it
    cdef bint claim(self, uint32_t index) noexcept nogil
    # give up one claim; `wake` once after the last of a fetch
    cdef void release(self, uint32_t index) noexcept nogil
    cdef void wake(self) noexcept nogil
    # forget, in this process alone, whatever the file says: its data are not there any more
    cdef void distrust(self) noexcept nogil
