"""Chunks that were checked and written to the cache file a moment ago.

With `validate` each read of the cache checks the digest of the chunks that it touches, on the
fetching side. While a cold image is read, nearly all of these chunks have been checked when they
were fetched, milliseconds before; to check them again cost as much as to fetch them. So what this
process wrote itself is taken as good for a moment, as long as nobody else changes a file: the
kernel tells of writes by other processes (fanotify(7), with who it was; where it does not, nothing
is taken as good), and while we do not write, the file's times must be those that our last write has
left. A write of our own makes what lay there be checked: images tell by themselves where their
chunks are, and one may lie. Any thread, without the GIL.
"""

from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset
from posix.fcntl cimport O_RDONLY
from posix.stat cimport fstat, struct_stat
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport getpid, read

cimport cython

from nydusd.rafs.blobmeta cimport ChunkPlace

from nydusd.base.errors import check


cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t *, void *)
    int pthread_mutex_destroy(pthread_mutex_t *)
    int pthread_mutex_lock(pthread_mutex_t *)
    int pthread_mutex_unlock(pthread_mutex_t *)

cdef extern from "<sys/fanotify.h>" nogil:
    """
    #ifndef FAN_MARK_EVICTABLE
    #define FAN_MARK_EVICTABLE 0x200    /* Linux 5.19: a mark does not keep its inode in memory */
    #endif
    """
    struct fanotify_event_metadata:
        uint32_t event_len
        int pid
    int fanotify_init(unsigned int, unsigned int)
    int fanotify_mark(int, unsigned int, uint64_t, int, const char *)
    int FAN_CLOEXEC, FAN_NONBLOCK, FAN_REPORT_FID, FAN_MARK_ADD, FAN_MARK_EVICTABLE
    uint64_t FAN_MODIFY

cdef extern from *:
    """
    static pthread_mutex_t notices_lock = PTHREAD_MUTEX_INITIALIZER;
    """
    pthread_mutex_t notices_lock    # guards the two below

cdef enum:
    FRESH_MS = 2000
    EVENTS_BYTES = 4096

cdef int notices = -1               # fanotify of this process, opened with the first file
cdef uint64_t foreign_writes = 0    # of other processes, to any file that is watched


cdef int watch_writes(int fd) noexcept nogil:
    """Have writes of others to the file *fd* noticed; 0 or -errno."""
    global notices
    cdef int rc = 0
    pthread_mutex_lock(&notices_lock)
    if notices < 0:
        notices = fanotify_init(FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID, O_RDONLY)
    if notices < 0 or fanotify_mark(
            notices, FAN_MARK_ADD | FAN_MARK_EVICTABLE, FAN_MODIFY, fd, NULL) != 0:
        rc = -errno
    pthread_mutex_unlock(&notices_lock)
    return rc


cdef uint64_t count_foreign_writes() noexcept nogil:
    """How many writes of other processes there have been; a number only that grows."""
    global foreign_writes
    cdef uint8_t events[EVENTS_BYTES]
    cdef fanotify_event_metadata *event
    cdef int64_t size
    cdef int64_t at
    cdef uint64_t seen
    cdef int own = 0
    pthread_mutex_lock(&notices_lock)
    while True:
        size = read(notices, events, EVENTS_BYTES)
        if size <= 0:
            if size < 0 and errno == EINTR:
                continue
            if size == 0 or errno != EAGAIN:
                foreign_writes += 1     # nothing is known
            break
        at = 0
        own = own or getpid()
        while at < size:
            event = <fanotify_event_metadata *>(events + at)
            if event.pid != own:        # 0: of another namespace, or events were lost
                foreign_writes += 1
            at += event.event_len
    seen = foreign_writes
    pthread_mutex_unlock(&notices_lock)
    return seen


cdef uint32_t now_ms() noexcept nogil:
    """A clock that goes round after 49 days."""
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <uint32_t>(<uint64_t>now.tv_sec * 1000 + <uint64_t>now.tv_nsec // 1000000)


@cython.final
cdef class FreshChunks:
    """Of the cache file open as *fd*, which stays the caller's and outlives this.

    `OSError` where the kernel does not tell of the writes of others.
    """

    def __cinit__(self, int fd):
        self.fd = fd
        self.writers = self.unfollowed = 0
        memset(self.writes, 0, sizeof(self.writes))
        memset(&self.known, 0, sizeof(Stamp))
        memset(self.rows, 0, sizeof(self.rows))
        self.foreign = 0
        pthread_mutex_init(&self.lock, NULL)
        check(watch_writes(fd), "watching the writes of others to a cache file")

    def __dealloc__(self):
        pthread_mutex_destroy(&self.lock)

    cdef int begin_write(self, uint64_t offset, uint64_t size) noexcept nogil:
        cdef int number
        pthread_mutex_lock(&self.lock)
        self.look_at_file()
        self.writers += 1
        self.forget(offset, offset + size)
        number = self.follow(offset, offset + size)
        pthread_mutex_unlock(&self.lock)
        return number

    cdef void end_write(self, int number) noexcept nogil:
        pthread_mutex_lock(&self.lock)
        if number < 0:
            self.unfollowed -= 1
        else:
            self.writes[number].end = 0
        self.writers -= 1
        if self.writers == 0:
            read_stamp(self.fd, &self.known)
        pthread_mutex_unlock(&self.lock)

    cdef void forget(self, uint64_t offset, uint64_t end) noexcept nogil:
        """What lay in [offset, end) is not vouched for any more; under the lock."""
        cdef FreshRow *row
        cdef uint32_t i
        for i in range(FRESH_ROWS):
            row = &self.rows[i]
            if row.offset < end and offset < row.offset + row.size:
                memset(row, 0, sizeof(FreshRow))

    cdef int follow(self, uint64_t offset, uint64_t end) noexcept nogil:
        """The number of a write of [offset, end), -1 for one too many; under the lock."""
        cdef int number = -1
        cdef bint is_crossed = self.unfollowed > 0
        cdef int i
        for i in range(WRITES_MAX):
            if self.writes[i].end == 0:
                number = i
            elif self.writes[i].offset < end and offset < self.writes[i].end:
                self.writes[i].is_crossed = is_crossed = True
        if number < 0:
            self.unfollowed += 1
            for i in range(WRITES_MAX):
                self.writes[i].is_crossed = True
            return -1
        self.writes[number].offset = offset
        self.writes[number].end = end
        self.writes[number].foreign = self.foreign
        self.writes[number].is_crossed = is_crossed
        return number

    cdef void look_at_file(self) noexcept nogil:
        """Forget all chunks when somebody else has changed a file; under the lock."""
        cdef Stamp stamp
        cdef uint64_t foreign = count_foreign_writes()
        cdef bint same = foreign == self.foreign
        self.foreign = foreign
        if self.writers == 0:       # else its times are changing, by us
            if read_stamp(self.fd, &stamp) != 0 or memcmp(
                    &stamp, &self.known, sizeof(Stamp)) != 0:
                same = False
            self.known = stamp
        if not same:
            memset(self.rows, 0, sizeof(self.rows))

    cdef FreshRow *row_to_use(self, const FreshRow *new) noexcept nogil:
        """Where *new* goes; under the lock.

        Readers in several places of an image fetch chunks whose numbers meet in one row.
        """
        cdef FreshRow *row = self.rows + new.index % (FRESH_ROWS // FRESH_WAYS) * FRESH_WAYS
        cdef FreshRow *oldest = row
        cdef int i
        for i in range(FRESH_WAYS):
            if row[i].size == 0 or row[i].index == new.index:
                return &row[i]
            if new.time_ms - row[i].time_ms > new.time_ms - oldest.time_ms:
                oldest = &row[i]
        return oldest

    cdef void vouch(self, int number, uint32_t index, const ChunkPlace *place,
                    const uint8_t *digest) noexcept nogil:
        cdef FreshRow row
        fill_row(&row, index, place, digest)
        row.time_ms = now_ms()
        pthread_mutex_lock(&self.lock)
        # No look at the file: one precedes every answer, and forgets all rows when somebody has
        # written since `begin_write`. Neighbours come along by the hundred.
        if (number >= 0 and not self.writes[number].is_crossed
                and self.writes[number].foreign == self.foreign):
            self.row_to_use(&row)[0] = row
        pthread_mutex_unlock(&self.lock)

    cdef bint vouches(self, uint32_t index, const ChunkPlace *place,
                      const uint8_t *digest) noexcept nogil:
        cdef FreshRow row
        cdef FreshRow *found = self.rows + index % (FRESH_ROWS // FRESH_WAYS) * FRESH_WAYS
        cdef uint32_t now = now_ms()
        cdef bint answer = False
        cdef int i
        fill_row(&row, index, place, digest)
        pthread_mutex_lock(&self.lock)
        for i in range(FRESH_WAYS):
            row.time_ms = found[i].time_ms
            if (memcmp(&row, &found[i], sizeof(FreshRow)) == 0
                    and now - row.time_ms <= <uint32_t>FRESH_MS):
                self.look_at_file()
                answer = found[i].size != 0
                break
        pthread_mutex_unlock(&self.lock)
        return answer


cdef void fill_row(FreshRow *row, uint32_t index, const ChunkPlace *place,
                   const uint8_t *digest) noexcept nogil:
    memset(row, 0, sizeof(FreshRow))
    row.index = index
    row.offset = place.uncompressed_offset
    row.size = place.uncompressed_size
    if digest != NULL:
        memcpy(row.digest, digest, FRESH_DIGEST_BYTES)


cdef int read_stamp(int fd, Stamp *out) noexcept nogil:
    cdef struct_stat found
    memset(out, 0, sizeof(Stamp))
    if fstat(fd, &found) != 0:
        return -1
    out.modified_ns = <int64_t>found.st_mtim.tv_sec * 1000000000 + found.st_mtim.tv_nsec
    out.changed_ns = <int64_t>found.st_ctim.tv_sec * 1000000000 + found.st_ctim.tv_nsec
    out.size = found.st_size
    return 0
