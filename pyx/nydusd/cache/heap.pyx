"""The memory of fetches: large buffers to use again, and when they go back to the system.

A fetch of 1 MiB has buffers of some MiB for a few milliseconds. Pages that are new to the process
have to be cleared by the kernel, at the first touch of each: a quarter of the time of a fetch. So
its buffers are kept for the next one, and malloc gives nothing back by itself; a thread that lives
as long as fetches follow each other gives back all of it a moment after the last one. New buffers
have their pages made in one call, by the thread that will wait for a backend, and not one by one by
the thread that carries everybody's bytes. There is one heap for all threads: those of others could
not be trimmed, and threads hold the GIL when they allocate.
"""

import threading
import time

from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_Resize,
)
from libc.stdint cimport uint64_t


cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t)
    int mallopt(int, int)
    int M_ARENA_MAX, M_MMAP_THRESHOLD, M_TRIM_THRESHOLD

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)

cdef extern from "<Python.h>":
    ctypedef struct ExportedBytes "PyByteArrayObject":
        Py_ssize_t ob_exports

cdef enum:
    PAGE_BYTES = 4096
    MADV_POPULATE_WRITE = 23    # Linux 5.14; older headers do not have it
    LARGE_BYTES = 1 << 17       # smaller buffers are malloc's business
    # Room is for a multiple of a quarter of the size that a buffer has at least, so that the next
    # one fits although it is a little longer.
    STEPS_SHIFT = 2
    SHELF_BYTES = 1 << 25       # kept at most
    GIVE_BACK_BYTES = 1 << 20   # fetched; less leaves nothing that is worth it
    BUSY_ROUNDS = 10            # of IDLE_SECONDS without a pause: give back what is not in use now
    MAPPED_BYTES = 1 << 25      # buffers of this size and more are mapped and unmapped one by one
    NEVER_BYTES = 1 << 30       # free at the top of the heap, for malloc to give it back by itself

mallopt(M_ARENA_MAX, 1)
mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
mallopt(M_TRIM_THRESHOLD, NEVER_BYTES)

cdef double IDLE_SECONDS = 0.1      # without the end of a fetch, before memory is given back

# Guarded by the GIL.
cdef list shelf = []            # (room, buffer): free ones, the last one was used last
cdef uint64_t shelf_bytes = 0   # room of all of them
cdef uint64_t fetched_bytes = 0     # since memory was given back
cdef uint64_t rounds = 0        # fetches that have ended
cdef bint waiting = False       # whether the thread runs


cdef uint64_t room_for(uint64_t size) noexcept:
    """Bytes that a buffer for *size* bytes gets."""
    cdef uint64_t step = LARGE_BYTES
    while step << (STEPS_SHIFT + 1) <= size:
        step <<= 1
    return (size + step - 1) & ~(step - 1)


cdef bytearray take_buffer(uint64_t size):
    global shelf_bytes
    cdef bytearray buffer
    cdef uint64_t room
    cdef Py_ssize_t i
    if size < LARGE_BYTES:
        return PyByteArray_FromStringAndSize(NULL, size)
    room = room_for(size)
    for i in range(len(shelf) - 1, -1, -1):
        if shelf[i][0] == room:
            buffer = shelf.pop(i)[1]
            shelf_bytes -= room
            PyByteArray_Resize(buffer, size)    # not less than half of its room: stays in place
            return buffer
    buffer = PyByteArray_FromStringAndSize(NULL, room)
    PyByteArray_Resize(buffer, size)
    make_pages(<uint64_t>PyByteArray_AS_STRING(buffer), size)
    return buffer


cdef void make_pages(uint64_t start, uint64_t size) noexcept:
    """Have the pages that lie wholly in [start, start + size); each is made at its touch else."""
    cdef uint64_t first = (start + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1)
    cdef uint64_t end = (start + size) & ~<uint64_t>(PAGE_BYTES - 1)
    with nogil:
        madvise(<void *>first, end - first, MADV_POPULATE_WRITE)


cdef int give_buffer(bytearray buffer) except -1:
    global shelf_bytes
    cdef uint64_t room = room_for(len(buffer))
    if len(buffer) < LARGE_BYTES or shelf_bytes + room > SHELF_BYTES:
        return 0
    if (<ExportedBytes *><void *>buffer).ob_exports != 0:
        # A view of a failed request: whoever has it may write through it until it is gone.
        return 0
    shelf.append((room, buffer))
    shelf_bytes += room
    return 0


cdef void note_end(uint64_t size) noexcept:
    global fetched_bytes, rounds, waiting
    fetched_bytes += size
    rounds += 1
    if fetched_bytes < GIVE_BACK_BYTES or waiting:
        return
    waiting = True
    try:
        threading.Thread(target=give_back, name="give-back", daemon=True).start()
    except Exception:       # no more threads
        waiting = False
        empty()


cdef int empty() except -1:
    """Give back all that nobody uses."""
    global shelf_bytes, fetched_bytes
    shelf.clear()
    shelf_bytes = fetched_bytes = 0
    with nogil:
        malloc_trim(0)
    return 0


def give_back():
    """Wait for a pause between fetches, give back what they have left, and end."""
    global waiting
    cdef uint64_t seen
    cdef int busy = 0
    while True:
        seen = rounds
        time.sleep(IDLE_SECONDS)
        busy += 1
        if seen == rounds or busy >= BUSY_ROUNDS:
            busy = 0
            empty()
        if seen == rounds:
            waiting = False
            return
