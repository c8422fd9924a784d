"""One worker more than there are processors takes requests; the others stand by.

A worker never waits for a backend, so more of them than processors only push each other aside
(20,000 small files, 4 readers, 2 processors: 0.41 s with 2 or 3 workers, 0.44 s with 4); one more
listens while the others answer. But a worker can wait for a local disk, when bytes of the
cache have left the page cache: before that it gives its permit to one that stands by. Any thread.
"""

import os

from libc.errno cimport errno
from libc.stdint cimport uint8_t, uint32_t, uintptr_t

cimport cython

from nydusd.fs.op cimport iovec

from nydusd.base.errors import check


cdef extern from "<sys/mman.h>" nogil:
    int mincore(void *, size_t, unsigned char *)

cdef extern from "<semaphore.h>" nogil:
    int sem_init(sem_t *, int, unsigned int)
    int sem_wait(sem_t *)
    int sem_post(sem_t *)
    int sem_destroy(sem_t *)


cdef enum:
    PAGE_BYTES = 4096
    PAGES_AT_A_TIME = 512


cdef bint is_in_memory(uintptr_t start, size_t size) noexcept nogil:
    cdef unsigned char resident[PAGES_AT_A_TIME]
    cdef size_t pages
    cdef size_t i
    size += start % PAGE_BYTES
    start -= start % PAGE_BYTES
    while size > 0:
        pages = min((size + PAGE_BYTES - 1) // PAGE_BYTES, <size_t>PAGES_AT_A_TIME)
        if mincore(<void *>start, pages * PAGE_BYTES, resident) != 0:
            return True     # nobody knows
        for i in range(pages):
            if not resident[i] & 1:
                return False
        start += pages * PAGE_BYTES
        size -= min(size, pages * PAGE_BYTES)
    return True


cdef bint waits_for_disk(const iovec *iov, uint32_t count, const uint8_t *own,
                         size_t own_size) noexcept nogil:
    cdef uintptr_t start
    cdef uint32_t i
    for i in range(count):
        start = <uintptr_t>iov[i].iov_base
        if <uintptr_t>own <= start < <uintptr_t>own + own_size:
            continue
        if not is_in_memory(start, iov[i].iov_len):
            return True
    return False


@cython.final
cdef class Permits:
    """Permits for *workers* threads, at most one more than *processors* (0: as we may use)."""

    def __cinit__(self, int workers, int processors=0):
        cdef int permits = min(workers, (processors or len(os.sched_getaffinity(0))) + 1)
        check(-errno if sem_init(&self.free, 0, permits) != 0 else 0, "sem_init")
        self.spare = workers - permits

    def __dealloc__(self):
        sem_destroy(&self.free)

    cdef int take(self) noexcept nogil:
        return -errno if sem_wait(&self.free) != 0 else 0

    cdef void give(self) noexcept nogil:
        sem_post(&self.free)
