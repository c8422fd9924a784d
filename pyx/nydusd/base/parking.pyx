"""A lot where requests wait for a counter to change, without holding a thread.

A request that finds its bytes already being fetched by somebody else notes the value of a
counter that is raised whenever a fetch ends, and parks. Nobody is missed: `park` refuses when the
counter has moved since, and `raise_and_resume` raises it before it looks for waiters.
Called by any thread; the lock is a leaf: nothing is taken under it.
"""

from libc.stdint cimport int64_t, uint64_t
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef extern from *:
    """
    static pthread_mutex_t lot_lock = PTHREAD_MUTEX_INITIALIZER;
    static inline uint64_t counter_load(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void counter_raise(uint64_t *p) { __atomic_fetch_add(p, 1, __ATOMIC_SEQ_CST); }
    """
    pthread_mutex_t lot_lock
    uint64_t counter_load(const uint64_t *) noexcept nogil
    void counter_raise(uint64_t *) noexcept nogil

cdef Parked *waiting = NULL     # guarded by lot_lock


cdef uint64_t counter_of(const uint64_t *counter) noexcept nogil:
    return counter_load(counter)


cdef int64_t monotonic_ms() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000


cdef int park(Parked *entry) noexcept nogil:
    """PARKED, or COUNTER_MOVED without having parked; *entry* is the lot's until it resumes."""
    global waiting
    cdef int result = PARKED
    pthread_mutex_lock(&lot_lock)
    if counter_load(entry.counter) != entry.seen:
        result = COUNTER_MOVED
    else:
        entry.next = waiting
        waiting = entry
    pthread_mutex_unlock(&lot_lock)
    return result


cdef Parked *take(const uint64_t *counter, int64_t now_ms, int64_t *wait_ms) noexcept nogil:
    """Unlink the entries parked on *counter* (NULL: those past their deadline)."""
    global waiting
    cdef Parked **link = &waiting
    cdef Parked *entry
    cdef Parked *taken = NULL
    pthread_mutex_lock(&lot_lock)
    while link[0] != NULL:
        entry = link[0]
        if (entry.counter == counter) if counter != NULL else (entry.deadline_ms <= now_ms):
            link[0] = entry.next
            entry.next = taken
            taken = entry
        else:
            if wait_ms[0] < 0 or entry.deadline_ms - now_ms < wait_ms[0]:
                wait_ms[0] = entry.deadline_ms - now_ms
            link = &entry.next
    pthread_mutex_unlock(&lot_lock)
    return taken


cdef void resume_all(Parked *entry) noexcept nogil:
    cdef Parked *following
    while entry != NULL:
        following = entry.next      # the entry is its owner's again once it has resumed
        entry.resume(entry)
        entry = following


cdef void raise_and_resume(uint64_t *counter) noexcept nogil:
    cdef int64_t wait_ms = -1
    counter_raise(counter)
    resume_all(take(counter, 0, &wait_ms))


cdef int64_t resume_expired(int64_t now_ms) noexcept nogil:
    cdef int64_t wait_ms = -1
    resume_all(take(NULL, now_ms, &wait_ms))
    return wait_ms
