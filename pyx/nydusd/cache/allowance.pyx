"""How many bytes fetches may hold at a time for units that many chunks share.

A stretch of a gzip layer is one to two MiB stored and as much plain, whatever part of it a read
asks for, and a hostile one 17 and 16: sixty threads of the pool would need a GiB. What takes more
than all there is waits until nobody else holds any. Guarded by the GIL; a thread that holds some
never waits, so that nobody waits in a circle.
"""

import threading

from libc.stdint cimport uint64_t

WAIT_SECONDS_MAX = 10.0     # then it goes on all the same: a holder hangs in its backend

cdef uint64_t held = 0              # by all threads
cdef dict holders = {}              # thread -> bytes
cdef object given_back = threading.Condition()


cdef bint may_take(uint64_t size) noexcept:
    return held == 0 or (size <= ALLOWANCE_BYTES and held <= ALLOWANCE_BYTES - size)


cdef int take(uint64_t size) except -1:
    global held
    thread = threading.get_ident()
    if thread not in holders and not may_take(size):
        with given_back:
            given_back.wait_for(lambda: may_take(size), WAIT_SECONDS_MAX)
    holders[thread] = holders.get(thread, 0) + size
    held += size
    return 0


cdef int give_back(uint64_t size) except -1:
    global held
    if size == 0:
        return 0
    thread = threading.get_ident()
    left = holders.pop(thread) - size
    if left:
        holders[thread] = left
    held -= size
    with given_back:
        given_back.notify_all()
    return 0


def take_bytes(uint64_t size):
    """Take *size* bytes for this thread; see `take`."""
    take(size)


def give_bytes_back(uint64_t size):
    """Give *size* bytes of this thread back."""
    give_back(size)


def held_bytes():
    """What all threads hold now."""
    return held
