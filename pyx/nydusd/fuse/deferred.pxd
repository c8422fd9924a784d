# Reads that have to wait, away from the workers.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from nydusd.base.parking cimport Parked
from nydusd.fs.op cimport ReadOp
from nydusd.fs.vfs cimport Mount, Vfs
from nydusd.fuse.reply cimport ReplyPort

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

# One read that waits: owned by the queue, the parking lot or the thread that runs it, in turn.
cdef struct Waiting:
    Parked parked           # first: `resume` gets its address
    ReadOp op
    Mount *mount            # the read is counted in it
    ReplyPort port
    uint64_t unique
    int64_t deadline_ms     # when it stops waiting for other people's fetches; 0 = not set yet
    uint32_t rounds
    int answered            # atomic; 1 = somebody has taken it on to send the answer
    void *owner             # DeferredReads, which outlives it
    Waiting *next           # of the queue; guarded by the lock
    Waiting **run_link      # what points at it in the list of those that run; guarded by the lock
    Waiting *run_next       # guarded by the lock
    int64_t since           # when it came, seconds since the epoch
    Waiting **all_link      # what points at it in the list of all; guarded by the lock
    Waiting *all_next       # guarded by the lock

cdef class DeferredReads:
    cdef Vfs vfs
    cdef pthread_mutex_t lock       # only the parking lot's is taken under it
    cdef pthread_cond_t changed     # work, an entry parked, or the end
    cdef Waiting *first             # guarded by lock
    cdef Waiting **last             # guarded by lock
    cdef Waiting *running           # guarded by lock
    cdef Waiting *all               # guarded by lock; taken and not finished
    cdef uint64_t parkings          # guarded by lock
    cdef int idle                   # guarded by lock
    cdef int count                  # guarded by lock; threads
    cdef int limit                  # set once before start
    cdef int stop_code              # guarded by lock; what becomes of what is left
    cdef int sending                # atomic; threads between taking an answer on and having sent it
    cdef int outstanding            # atomic; reads taken and not finished
    cdef list threads               # guarded by the GIL
    cdef int started                # guarded by the GIL; for names

    # The read of *op* is answered later through *port*: 0, or -ENOMEM (not taken). *result* is what
    # `Filesystem.read` said. On success the in-flight count of *mount* is ours.
    cdef int defer(self, const ReadOp *op, int result, Mount *mount, const ReplyPort *port,
                   uint64_t unique) noexcept nogil

    cdef void list_entry(self, Waiting *entry) noexcept nogil
    cdef void queue(self, Waiting *entry) noexcept nogil
    cdef void park_or_queue(self, Waiting *entry) noexcept nogil
    cdef Waiting *take(self) noexcept nogil
    cdef Waiting *wait_for_work(self) noexcept nogil
    cdef void start_spare(self) noexcept with gil
    cdef size_t run(self, Waiting *entry) noexcept nogil
    cdef int step(self, Waiting *entry) noexcept nogil
    cdef int answer(self, Waiting *entry, int32_t code) noexcept nogil
    cdef void finish(self, Waiting *entry) noexcept nogil
    cdef void unlist(self, Waiting *entry) noexcept nogil
    cdef void end_queue(self, int code) noexcept nogil
