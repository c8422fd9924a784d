# Who of a carrier's workers may take requests.
from libc.stdint cimport uint8_t, uint32_t

from nydusd.fs.op cimport iovec

cdef extern from "<semaphore.h>" nogil:
    ctypedef struct sem_t:
        pass

cdef class Permits:
    cdef sem_t free
    cdef readonly int spare         # workers without a permit while all others have one

    cdef int take(self) noexcept nogil      # waits; 0, -EINTR a signal came
    cdef void give(self) noexcept nogil

# Whether some byte of the segments, but those inside *own*, may have to be read from a disk first
cdef bint waits_for_disk(const iovec *iov, uint32_t count, const uint8_t *own,
                         size_t own_size) noexcept nogil
