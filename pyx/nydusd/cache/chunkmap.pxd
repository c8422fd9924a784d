# Which chunks of a blob are on local disk, and which are being fetched by this process.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping

cdef class ChunkMap:
    cdef uint8_t *known             # owned; atomic bytes; one bit a chunk, the highest bit first
    cdef uint8_t *claims            # owned; atomic bytes, as `known`
    cdef size_t bitmap_size         # bytes of `known` and of `claims`
    cdef Mapping file               # None: in memory only
    cdef Mapping twin               # None, or another map of the same data file
    cdef bint writing               # promises may be added to the files
    cdef int sharing                # atomic: the files count
    cdef int all_ready              # atomic: the marker was set when the file was opened
    cdef uint64_t counter           # for parking: raised whenever claims are given up
    cdef readonly uint32_t count    # chunks

    # this process knows that the bytes are in the data file
    cdef bint is_ready(self, uint32_t index) noexcept nogil
    # a file says so; look before believing it, then `trust`
    cdef bint is_promised(self, uint32_t index) noexcept nogil
    cdef bint is_set(self, Mapping mapping, uint32_t index) noexcept nogil
    cdef void trust(self, uint32_t index) noexcept nogil
    cdef bint is_claimed(self, uint32_t index) noexcept nogil
    # the bytes have been written before; no-op past the last chunk
    cdef void set_ready(self, uint32_t index) noexcept nogil
    # true: the caller has it now and must release it; false: somebody else has it
    cdef bint claim(self, uint32_t index) noexcept nogil
    # the bytes are about to go: neither known nor promised any more, to anybody
    cdef void unset(self, uint32_t index) noexcept nogil
    # give up one claim; `wake` once after the last of a fetch
    cdef void release(self, uint32_t index) noexcept nogil
    cdef void wake(self) noexcept nogil
    # know nothing any more: whatever the files promise is looked at again
    cdef void doubt(self) noexcept nogil
    # leave the files alone from now on; what is known stays known
    cdef void detach(self) noexcept nogil
    # both: the data are not there any more
    cdef void distrust(self) noexcept nogil
