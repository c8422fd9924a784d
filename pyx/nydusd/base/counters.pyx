"""Counters that any thread raises without a lock and anybody reads by name."""

from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free

cimport cython


cdef extern from *:
    """
    static inline void counter_add(uint64_t *p, uint64_t n)
        { __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }
    static inline uint64_t counter_value(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    """
    void counter_add(uint64_t *, uint64_t) noexcept nogil
    uint64_t counter_value(const uint64_t *) noexcept nogil


@cython.final
cdef class Counters:
    """One counter for each of *names*, all zero."""

    def __cinit__(self, *names):
        self.names = names
        self.values = <uint64_t *>calloc(len(names) or 1, sizeof(uint64_t))
        if self.values == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.values)

    cdef void add(self, unsigned int index, uint64_t amount) noexcept nogil:
        counter_add(&self.values[index], amount)

    def raise_by(self, str name, uint64_t amount=1):
        """Add *amount* to the counter *name*; `ValueError` when there is none."""
        counter_add(&self.values[self.names.index(name)], amount)

    def snapshot(self):
        """Every counter's value by its name; each one exact, not all of the same moment."""
        cdef unsigned int i
        return {name: counter_value(&self.values[i]) for i, name in enumerate(self.names)}
