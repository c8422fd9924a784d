"""When each chunk of a blob was used last, for a cache directory whose size is limited.

Written by every read that hits, without a lock: a stamp that is lost to a race is as good as the
one that won. `cache.evict` reads it. Blobs of directories without a limit have none of this.
"""

from libc.stdint cimport uint32_t, uint64_t

cimport cython


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int clock_gettime(int, timespec *)
    int CLOCK_MONOTONIC_COARSE

cdef extern from *:
    """
    static inline uint64_t uses_load(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void uses_raise(uint64_t *p) { __atomic_add_fetch(p, 1, __ATOMIC_ACQ_REL); }
    """
    uint64_t uses_load(const uint64_t *) noexcept nogil
    void uses_raise(uint64_t *) noexcept nogil


cdef uint32_t now() noexcept nogil:
    cdef timespec at
    clock_gettime(CLOCK_MONOTONIC_COARSE, &at)
    return <uint32_t>at.tv_sec + 1


def stamp_now():
    """The stamp of a use at this moment: whole seconds of the monotonic clock, from 1."""
    return now()


@cython.final
cdef class Uses:
    """Of *count* chunks; none has been used. *room* is asked before any of them is kept."""

    def __cinit__(self, uint32_t count, room=None):
        cdef void *base = mmap(NULL, (count or 1) * sizeof(Use), PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if base == MAP_FAILED:
            raise MemoryError
        self.rows = <Use *>base
        self.count = count
        self.evictions = 0
        self.room = room

    def __dealloc__(self):
        if self.rows != NULL:
            munmap(self.rows, (self.count or 1) * sizeof(Use))

    cdef void note(self, uint32_t index, uint64_t offset, uint32_t size) noexcept nogil:
        cdef Use *row
        cdef uint32_t stamp
        if index >= self.count:
            return
        row = &self.rows[index]
        stamp = now()
        if row.stamp != stamp:
            row.offset = offset
            row.size = size
            row.stamp = stamp

    cdef uint64_t seen(self) noexcept nogil:
        return uses_load(&self.evictions)

    cdef void raise_evictions(self) noexcept nogil:
        uses_raise(&self.evictions)
