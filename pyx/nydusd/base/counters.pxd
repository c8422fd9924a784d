# Atomic counters with names.
from libc.stdint cimport uint64_t

cdef class Counters:
    cdef readonly tuple names
    cdef uint64_t *values           # owned; atomic, relaxed; as many as names

    # *index* is trusted: an enum beside the names
    cdef void add(self, unsigned int index, uint64_t amount) noexcept nogil
