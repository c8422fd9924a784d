# Which pages of a mapped data file hits keep resident.
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    NEIGHBOURHOODS = 64     # remembered places of small reads; a power of two
    # A read up to this size is copied when it is the first in its neighbourhood: the faults of a
    # mapping cost more than the copy (daemon CPU of a random 4 KiB read,
    # perf/scenarios/rand-read.toml: 15 us mapped, 11.5 us copied). Where more reads follow, as over
    # small files that lie one behind the other, a fault maps what they need too. A larger one
    # makes no window hot.
    SMALL_BYTES = 1 << 14

cdef class ResidentPages:
    cdef uint8_t *base              # borrowed: the mapping, never touched by user space
    cdef uint64_t size
    cdef int fd                     # borrowed: the file that is mapped
    cdef uint64_t served            # atomic: bytes mapped in by hits since the last trim, about
    # atomic: the neighbourhood last seen in each row, from 1, times 2; + 1 = its pages are mapped
    cdef uint64_t visited[NEIGHBOURHOODS]
    cdef bint is_looked_after       # somebody calls cool()
    cdef uint64_t copies            # atomic: small reads that were copied
    cdef uint64_t copies_since      # atomic: ms of the clock when they were last judged
    cdef int hot                    # atomic: small reads come fast, windows are mapped whole
    cdef int begun                  # atomic: it became hot since the last cool()
    cdef uint8_t *windows           # owned, set once; atomic: what each window is; NULL: never hot

    # whether a read of *n* bytes at *off*, inside the file, needs no look and no copy
    cpdef bint is_hot(self, uint64_t off, uint64_t n) noexcept nogil
    cdef bint heat(self, uint64_t number) noexcept nogil
    # a small read was copied
    cpdef void count_copy(self) noexcept nogil
    cdef void begin_hot(self) noexcept nogil
    # whether small reads have mapped in the neighbourhood of *off* lately
    cdef bint is_mapped(self, uint64_t off) noexcept nogil
    # remember a small read at *off*; whether it is the second, which maps. Racy, harmless
    cdef bint visit(self, uint64_t off) noexcept nogil
    # a hit maps in *n* bytes and what lies around them
    cpdef void count_mapped(self, uint64_t n) noexcept nogil
    cdef void trim(self) noexcept nogil
    cdef uint64_t window_count(self) noexcept nogil
    cdef uint64_t window_size(self, uint64_t number) noexcept nogil
    cdef void forget_partly(self) noexcept nogil
    cdef bint let_go(self, bint keep) noexcept nogil

# Whether the page cache has the *n* bytes at *off*, n > 0; false where the kernel cannot tell.
cpdef bint is_at_hand(int fd, uint64_t off, uint64_t n) noexcept nogil
# Whether the page cache had *n* bytes at *off*; no disk is waited for.
cdef bint read_from_memory(int fd, uint64_t off, uint8_t *out, uint64_t n) noexcept nogil
