"""Reads that have to wait: taken over from the workers, answered from here.

A worker never waits for a backend. A read whose bytes are missing becomes an entry of its own; a
pool of threads reads it again, fetches, and answers on the descriptor it came from. A read whose
bytes somebody else is fetching is parked and holds no thread. The last idle thread starts the next
one before it turns to work, so that there is always one to take new work, up to the limit; threads
that stay idle end.
"""

import threading
import time

from libc.errno cimport EIO, ENOMEM, ENOSYS, ETIMEDOUT
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

import cython

from nydusd.base.parking cimport (
    PARKED, Parked, monotonic_ms, park, resume_expired,
)
from nydusd.fs.op cimport (
    READ_AGAIN, READ_ANSWERED, READ_CLAIMED, READ_DONE, READ_MISSING, SPAN_ROOM, ReadOp, ReadTarget,
)
from nydusd.fs.vfs cimport Mount, Vfs, fetch, read_again
from nydusd.fuse.reply cimport (
    REPLY_BYTES, ReplyPort, Room, free_room, give_back, new_room, reply_error, reply_gathered,
)


cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_condattr_t:
        pass
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)
    int pthread_condattr_init(pthread_condattr_t *)
    int pthread_condattr_setclock(pthread_condattr_t *, int)
    int pthread_condattr_destroy(pthread_condattr_t *)
    int pthread_cond_init(pthread_cond_t *, pthread_condattr_t *)
    int pthread_cond_destroy(pthread_cond_t *)
    int pthread_cond_signal(pthread_cond_t *)
    int pthread_cond_broadcast(pthread_cond_t *)
    int pthread_cond_timedwait(pthread_cond_t *, pthread_mutex_t *, const timespec *)

cdef extern from *:
    """
    static inline int int_add(int *p, int n) { return __atomic_add_fetch(p, n, __ATOMIC_SEQ_CST); }
    static inline int int_load(int *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline int int_swap(int *p, int v)
        { return __atomic_exchange_n(p, v, __ATOMIC_SEQ_CST); }
    """
    int int_add(int *, int) noexcept nogil
    int int_load(int *) noexcept nogil
    int int_swap(int *, int) noexcept nogil

cdef enum:
    CLAIM_WAIT_MS = 2000        # for somebody else's fetch, as the reference waits
    IDLE_MS = 10000             # a thread beyond the first ends after it
    PATIENT_ROUNDS = 64         # of "look again" before a read fetches whatever others have claimed
    LAST_ROUND = 128            # and before it is given up
    IN_FLIGHT_MAX = 4096        # reads that are told to whoever asks
    # of stop_code, which else is -errno
    DROPPED = 1                 # what is left stays unanswered
    NOT_STOPPING = 2

# A read that is under way, as it is told.
cdef struct InFlight:
    uint64_t node_id
    uint64_t unique
    int64_t since


cdef void on_resume(Parked *parked) noexcept nogil:
    cdef Waiting *entry = <Waiting *>parked
    (<DeferredReads>entry.owner).queue(entry)


cdef void on_answer(ReadTarget *target, int32_t result) noexcept nogil:
    cdef Waiting *entry = <Waiting *>target.owner
    (<DeferredReads>entry.owner).answer(entry, result)


@cython.final
cdef class DeferredReads:
    """A pool of at most *limit* threads for the slow reads of *vfs*; `start` it, `stop` it once."""

    def __cinit__(self, Vfs vfs not None, int limit=64):
        cdef pthread_condattr_t attributes
        self.vfs = vfs
        self.limit = limit
        self.stop_code = NOT_STOPPING
        self.last = &self.first
        self.threads = []
        pthread_mutex_init(&self.lock, NULL)
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(&self.changed, &attributes)
        pthread_condattr_destroy(&attributes)

    def __dealloc__(self):
        pthread_cond_destroy(&self.changed)
        pthread_mutex_destroy(&self.lock)

    # ---------------------------------------------------------------- from any thread

    cdef int defer(self, const ReadOp *op, int result, Mount *mount, const ReplyPort *port,
                   uint64_t unique) noexcept nogil:
        cdef Waiting *entry = <Waiting *>calloc(1, sizeof(Waiting))
        if entry == NULL:
            return -ENOMEM
        entry.op = op[0]
        entry.mount = mount
        entry.port = port[0]
        entry.unique = unique
        entry.owner = <void *>self
        entry.parked.resume = on_resume
        int_add(&self.outstanding, 1)
        self.list_entry(entry)
        if result == READ_CLAIMED:
            self.park_or_queue(entry)
        else:
            self.queue(entry)
        return 0

    cdef void list_entry(self, Waiting *entry) noexcept nogil:
        """Put *entry* into the list of all."""
        cdef timespec now
        clock_gettime(CLOCK_REALTIME, &now)
        entry.since = now.tv_sec
        pthread_mutex_lock(&self.lock)
        entry.all_next = self.all
        if self.all != NULL:
            self.all.all_link = &entry.all_next
        self.all = entry
        entry.all_link = &self.all
        pthread_mutex_unlock(&self.lock)

    cdef void queue(self, Waiting *entry) noexcept nogil:
        """Hand *entry* to the pool; when that has stopped, it ends here."""
        cdef int code
        pthread_mutex_lock(&self.lock)
        code = self.stop_code
        if code == NOT_STOPPING:
            entry.next = NULL
            self.last[0] = entry
            self.last = &entry.next
            pthread_cond_signal(&self.changed)
        pthread_mutex_unlock(&self.lock)
        if code != NOT_STOPPING:
            self.answer(entry, code)
            self.finish(entry)

    cdef void park_or_queue(self, Waiting *entry) noexcept nogil:
        """Let *entry* wait for the counter of its target, or look again when that has moved."""
        cdef bint is_parked = False
        if entry.deadline_ms == 0:
            entry.deadline_ms = monotonic_ms() + CLAIM_WAIT_MS
        entry.parked.counter = entry.op.target.wait_on
        entry.parked.seen = entry.op.target.wait_seen
        entry.parked.deadline_ms = entry.deadline_ms
        pthread_mutex_lock(&self.lock)
        if self.stop_code == NOT_STOPPING:
            # under the lock, so that `stop` finds in the lot all that will ever be there; once
            # parked, the entry may be somebody else's at once
            is_parked = park(&entry.parked) == PARKED
            self.parkings += 1
            pthread_cond_signal(&self.changed)
        pthread_mutex_unlock(&self.lock)
        if not is_parked:
            self.queue(entry)

    cdef int answer(self, Waiting *entry, int32_t code) noexcept nogil:
        """Send the answer unless somebody has: what the target holds, or *code* when negative."""
        cdef int rc = 0
        cdef ReadTarget *target = &entry.op.target
        int_add(&self.sending, 1)
        if int_swap(&entry.answered, 1) == 0:
            if code <= 0:
                self.vfs.count_read(entry.mount, &entry.op, code)
            if code < 0:
                rc = reply_error(&entry.port, entry.unique, code)
            elif code == 0:
                rc = reply_gathered(&entry.port, entry.unique, target.iov - 1, target.iov_count,
                                    target.length)
        int_add(&self.sending, -1)
        return rc

    cdef void unlist(self, Waiting *entry) noexcept nogil:
        """Take *entry* off the list of those that a thread runs, if it is there."""
        pthread_mutex_lock(&self.lock)
        if entry.run_link != NULL:
            entry.run_link[0] = entry.run_next
            if entry.run_next != NULL:
                entry.run_next.run_link = entry.run_link
            entry.run_link = NULL
        pthread_mutex_unlock(&self.lock)

    cdef void finish(self, Waiting *entry) noexcept nogil:
        self.unlist(entry)
        pthread_mutex_lock(&self.lock)
        entry.all_link[0] = entry.all_next
        if entry.all_next != NULL:
            entry.all_next.all_link = entry.all_link
        pthread_mutex_unlock(&self.lock)
        self.vfs.leave(entry.mount)
        free(entry)
        int_add(&self.outstanding, -1)

    # ---------------------------------------------------------------- the pool

    cdef Waiting *wait_for_work(self) noexcept nogil:
        """The next entry, or NULL: this thread is to end. The lock is held, and given up to wait.

        Entries whose deadline has passed are resumed on the way.
        """
        cdef Waiting *entry
        cdef uint64_t parkings
        cdef int64_t wait_ms
        cdef timespec until
        while self.stop_code == NOT_STOPPING:
            entry = self.first
            if entry != NULL:
                self.first = entry.next
                if self.first == NULL:
                    self.last = &self.first
                return entry
            parkings = self.parkings
            pthread_mutex_unlock(&self.lock)
            wait_ms = resume_expired(monotonic_ms())
            pthread_mutex_lock(&self.lock)
            if self.first != NULL or self.parkings != parkings:
                continue
            if wait_ms < 0 or wait_ms > IDLE_MS:
                wait_ms = IDLE_MS
            clock_gettime(CLOCK_MONOTONIC, &until)
            until.tv_sec += wait_ms // 1000
            until.tv_nsec += wait_ms % 1000 * 1000000
            if until.tv_nsec >= 1000000000:
                until.tv_sec += 1
                until.tv_nsec -= 1000000000
            if pthread_cond_timedwait(&self.changed, &self.lock, &until) == ETIMEDOUT and (
                    wait_ms == IDLE_MS and self.idle > 1 and self.first == NULL):
                return NULL
        return NULL

    cdef Waiting *take(self) noexcept nogil:
        """The next entry for this thread to run, or NULL: it is to end."""
        cdef Waiting *entry
        cdef bint wants_spare = False
        pthread_mutex_lock(&self.lock)
        self.idle += 1
        entry = self.wait_for_work()
        self.idle -= 1
        if entry == NULL:
            self.count -= 1
        else:
            entry.run_next = self.running
            if self.running != NULL:
                self.running.run_link = &entry.run_next
            self.running = entry
            entry.run_link = &self.running
            wants_spare = self.idle == 0 and self.count < self.limit
            self.count += wants_spare
        pthread_mutex_unlock(&self.lock)
        if wants_spare:
            self.start_spare()
        return entry

    cdef void start_spare(self) noexcept with gil:
        """Start a thread that has been counted; without one, those that are there go on."""
        try:
            self.start_thread()
        except BaseException:       # no memory, or too many threads
            with nogil:
                pthread_mutex_lock(&self.lock)
                self.count -= 1
                pthread_mutex_unlock(&self.lock)

    def start_thread(self):
        """Start one pool thread; it ends when idle for long, or at `stop`."""
        self.started += 1
        thread = threading.Thread(target=self.work, name=f"fetch-{self.started}", daemon=True)
        self.threads = [t for t in self.threads if t.is_alive()]
        thread.start()
        self.threads.append(thread)

    def start(self):
        """Start the first thread."""
        self.count = 1
        self.start_thread()

    def work(self):
        """Run entries until there is nothing to do; a pool thread's whole life."""
        cdef Waiting *entry
        cdef Room *room = new_room()
        if room == NULL:
            self.count -= 1
            raise MemoryError
        with nogil:
            while True:
                entry = self.take()
                if entry == NULL:
                    break
                entry.op.target.iov = room.iov + 1
                entry.op.target.iov_room = SPAN_ROOM
                entry.op.target.buf = room.buf
                entry.op.target.buf_room = REPLY_BYTES
                entry.op.target.answer = on_answer
                entry.op.target.owner = entry
                give_back(room, self.run(entry))
            free_room(room)

    cdef size_t run(self, Waiting *entry) noexcept nogil:
        """Bring *entry* on until it is answered, parked or given up; bytes of the room it used."""
        cdef size_t used = 0
        cdef int rc
        while True:
            rc = self.step(entry)
            used = max(used, entry.op.target.buf_used)
            if rc == READ_CLAIMED:
                self.unlist(entry)
                self.park_or_queue(entry)
                return used
            if rc == READ_AGAIN:
                entry.rounds += 1
                if entry.rounds > PATIENT_ROUNDS:
                    entry.op.target.impatient = True
                if entry.rounds <= LAST_ROUND:
                    continue
                rc = -EIO
            if rc == READ_DONE:
                self.answer(entry, 0)
            elif rc != READ_ANSWERED:
                rc = rc if rc < 0 else -ENOSYS
                self.answer(entry, rc)
            self.finish(entry)
            return used

    cdef int step(self, Waiting *entry) noexcept nogil:
        """One attempt: READ_DONE, READ_CLAIMED, READ_AGAIN, READ_ANSWERED or -errno."""
        cdef ReadTarget *target = &entry.op.target
        cdef int rc
        target.iov_count = 0
        target.buf_used = target.length = 0
        rc = read_again(entry.mount, &entry.op)
        if rc == READ_CLAIMED and not target.impatient:
            if entry.deadline_ms == 0 or monotonic_ms() < entry.deadline_ms:
                return READ_CLAIMED
            target.impatient = True
        if rc != READ_MISSING and rc != READ_CLAIMED:
            return rc
        target.iov_count = 0
        target.buf_used = target.length = 0
        return fetch(entry.mount, &entry.op)

    # ---------------------------------------------------------------- the end

    def stop(self, int code, double drain=0.0, double join=1.0):
        """Take no more reads, answer what is left with *code* (-errno; 0 = leave it unanswered).

        Reads get *drain* seconds to end by themselves, threads then *join* seconds. Afterwards
        nothing is sent any more, though a thread may still be inside a fetch.
        """
        self.wait_until_idle(drain)
        self.end_queue(code if code < 0 else DROPPED)
        deadline = time.monotonic() + join
        for thread in self.threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        while int_load(&self.sending) != 0:
            time.sleep(0.0005)

    def wait_until_idle(self, double timeout):
        """Whether no read is outstanding, after at most *timeout* seconds."""
        deadline = time.monotonic() + timeout
        while int_load(&self.outstanding) != 0:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

    cdef void end_queue(self, int code) noexcept nogil:
        cdef Waiting *entry
        cdef Waiting *following
        pthread_mutex_lock(&self.lock)
        self.stop_code = code
        entry = self.first
        self.first = NULL
        self.last = &self.first
        pthread_cond_broadcast(&self.changed)
        pthread_mutex_unlock(&self.lock)
        while entry != NULL:
            following = entry.next
            self.answer(entry, code)
            self.finish(entry)
            entry = following
        resume_expired(INT64_MAX)       # the parked ones come to `queue`, which ends them
        pthread_mutex_lock(&self.lock)
        entry = self.running
        while entry != NULL:
            self.answer(entry, code)
            entry = entry.run_next
        pthread_mutex_unlock(&self.lock)

    def in_flight(self):
        """(node id, unique, seconds since the epoch) of every read that is taken and not answered.

        At most `IN_FLIGHT_MAX`.
        """
        cdef InFlight *found = <InFlight *>calloc(IN_FLIGHT_MAX, sizeof(InFlight))
        cdef Waiting *entry
        cdef int count = 0, i
        if found == NULL:
            raise MemoryError
        with nogil:
            pthread_mutex_lock(&self.lock)
            entry = self.all
            while entry != NULL and count < IN_FLIGHT_MAX:
                if int_load(&entry.answered) == 0:      # else it only keeps what it fetched
                    found[count].node_id = entry.op.node_id
                    found[count].unique = entry.unique
                    found[count].since = entry.since
                    count += 1
                entry = entry.all_next
            pthread_mutex_unlock(&self.lock)
        try:
            return [(found[i].node_id, found[i].unique, found[i].since) for i in range(count)]
        finally:
            free(found)

    @property
    def waiting(self):
        """How many reads are taken and not finished."""
        return int_load(&self.outstanding)

    @property
    def thread_count(self):
        """How many threads the pool has."""
        return self.count
