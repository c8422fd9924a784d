# Waiting for a counter to change without holding a thread.
from libc.stdint cimport int64_t, uint64_t

cdef enum:
    PARKED = 0
    COUNTER_MOVED = 1       # it has changed since it was looked at: do not wait, look again

cdef struct Parked:
    Parked *next            # guarded by the lot's lock
    const uint64_t *counter     # borrowed: outlives the wait
    uint64_t seen           # its value when the reason to wait was found
    int64_t deadline_ms     # monotonic; resumed then at the latest
    void (*resume)(Parked *) noexcept nogil     # called without the lot's lock; must not block

cdef int park(Parked *entry) noexcept nogil
# *counter* is raised by one and everybody parked on it resumes
cdef void raise_and_resume(uint64_t *counter) noexcept nogil
# resume all whose deadline has passed; ms until the next deadline, -1 = nobody is parked
cdef int64_t resume_expired(int64_t now_ms) noexcept nogil
cdef uint64_t counter_of(const uint64_t *counter) noexcept nogil
cdef int64_t monotonic_ms() noexcept nogil
