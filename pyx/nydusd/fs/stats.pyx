"""Counters of one mount: what was asked of it, how large and how fast its reads were.

Raised by every worker while it answers, without a lock and without the GIL: each thread has a shard
of its own or shares it with few, so that a read pays some nanoseconds. Read by the API. Classes and
their order are those of the reference (spec: http-api, metrics). Files are counted one by one only
where the configuration asks for it, and as many as the image has.
"""

import cython
from libc.errno cimport ENODATA
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from posix.time cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec


cdef extern from *:
    """
    static inline void stat_add(uint64_t *p, uint64_t n)
        { __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }
    static inline uint64_t stat_load(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline uint32_t stat_swap(uint32_t *p, uint32_t v)
        { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
    static inline uint32_t stat_load32(const uint32_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void *row_load(void *p) { return __atomic_load_n((void **)p, __ATOMIC_ACQUIRE); }
    static inline int row_claim(void *p, void *v) {
        void *none = 0;
        return __atomic_compare_exchange_n((void **)p, &none, v, 0, __ATOMIC_ACQ_REL,
                                           __ATOMIC_ACQUIRE);
    }
    static unsigned int threads_seen = 0;
    static __thread unsigned int thread_shard = 0;
    static inline unsigned int my_shard(unsigned int shards) {
        if (thread_shard == 0)
            thread_shard = __atomic_add_fetch(&threads_seen, 1, __ATOMIC_RELAXED);
        return thread_shard % shards;
    }
    """
    void stat_add(uint64_t *, uint64_t) noexcept nogil
    uint64_t stat_load(const uint64_t *) noexcept nogil
    uint32_t stat_swap(uint32_t *, uint32_t) noexcept nogil
    uint32_t stat_load32(const uint32_t *) noexcept nogil
    void *row_load(void *) noexcept nogil
    int row_claim(void *, void *) noexcept nogil
    unsigned int my_shard(unsigned int) noexcept nogil

cdef enum:
    # No image is trusted: one that claims more inodes has those beyond counted together alone.
    FILES_MAX = 1 << 22

# Upper bounds, exclusive and in bytes; the last class has none (reads by requested size).
cdef uint64_t[SIZE_CLASSES - 1] SIZE_BOUNDS = [
    1 << 10, 4 << 10, 16 << 10, 64 << 10, 128 << 10, 512 << 10, 1 << 20]
# Upper bounds, inclusive and in microseconds; the last class has none.
cdef int64_t[LATENCY_CLASSES - 1] LATENCY_BOUNDS = [
    200, 1000, 20000, 50000, 500000, 1000000, 2000000]

SIZE_BOUNDS_BYTES = tuple(SIZE_BOUNDS)
LATENCY_BOUNDS_MICROSECONDS = tuple(LATENCY_BOUNDS)
FOP_NAMES = (
    "getattr", "readlink", "open", "release", "read", "statfs", "getxattr", "listxattr", "opendir",
    "lookup", "readdir", "readdirplus", "access", "forget", "batchforget")


cdef inline int64_t nanoseconds_of(int clock) noexcept nogil:
    cdef timespec now
    clock_gettime(clock, &now)
    return <int64_t>now.tv_sec * 1000000000 + now.tv_nsec


cdef int64_t monotonic_ns() noexcept nogil:
    return nanoseconds_of(CLOCK_MONOTONIC)


cdef inline unsigned int size_class(uint64_t size) noexcept nogil:
    cdef unsigned int i = 0
    while i < SIZE_CLASSES - 1 and size >= SIZE_BOUNDS[i]:
        i += 1
    return i


cdef inline unsigned int latency_class(int64_t microseconds) noexcept nogil:
    cdef unsigned int i = 0
    while i < LATENCY_CLASSES - 1 and microseconds > LATENCY_BOUNDS[i]:
        i += 1
    return i


@cython.final
cdef class FsStats:
    """Counters, all zero, of a file system with *inodes* inodes.

    *per_file*, *access_pattern* and *latest_read* ask for what is kept of each file.
    """

    def __cinit__(self, uint64_t inodes=0, *, bint per_file=False, bint access_pattern=False,
                  bint latest_read=False):
        self.per_file = per_file
        self.access_pattern = access_pattern
        self.latest_read = latest_read
        self.shards = <Shard *>calloc(SHARDS, sizeof(Shard))
        if self.shards == NULL:
            raise MemoryError
        if per_file or access_pattern or latest_read:
            self.files_room = 64
            while self.files_room < 2 * min(inodes, <uint64_t>FILES_MAX):
                self.files_room *= 2
            self.files = <FileStats **>calloc(self.files_room, sizeof(FileStats *))
            if self.files == NULL:
                raise MemoryError

    def __dealloc__(self):
        cdef uint64_t i
        if self.files != NULL:
            for i in range(self.files_room):
                free(self.files[i])
            free(self.files)
        free(self.shards)

    # ---------------------------------------------------------------- counting

    cdef void count(self, unsigned int fop, uint64_t ino, int rc) noexcept nogil:
        cdef Shard *shard = &self.shards[my_shard(SHARDS)]
        cdef FileStats *file
        # that an attribute is missing is an answer as good as any
        cdef bint is_hit = rc == 0 or (rc == -ENODATA and fop == FOP_GETXATTR)
        stat_add(&shard.hits[fop] if is_hit else &shard.errors[fop], 1)
        if self.per_file:
            file = self.file_stats(ino)
            if file != NULL:
                stat_add(&file.hits[fop] if is_hit else &file.errors[fop], 1)

    cdef void count_read(self, uint64_t ino, uint64_t size, uint64_t length, int64_t nanoseconds,
                         int rc) noexcept nogil:
        cdef Shard *shard = &self.shards[my_shard(SHARDS)]
        cdef unsigned int of_size = size_class(size)
        cdef FileStats *file
        if rc != 0:
            stat_add(&shard.failed_reads[of_size], 1)
        else:
            stat_add(&shard.reads[of_size * LATENCY_CLASSES + latency_class(nanoseconds // 1000)],
                     1)
            stat_add(&shard.data_read, length)
        stat_add(&shard.read_ns, <uint64_t>nanoseconds)
        if self.files_room == 0:
            return
        file = self.file_stats(ino)
        if file == NULL:
            return
        if rc != 0:
            stat_add(&file.errors[FOP_READ], 1)
            return
        stat_add(&file.hits[FOP_READ], 1)
        stat_add(&file.sizes[of_size], 1)
        stat_add(&file.data_read, length)
        if file.first_read_ns == 0:     # two first readers: either moment will do
            file.first_read_ns = nanoseconds_of(CLOCK_REALTIME)
        if self.latest_read and stat_load32(&file.read_lately) == 0:
            stat_swap(&file.read_lately, 1)

    cdef FileStats *file_stats(self, uint64_t ino) noexcept nogil:
        """The counters of *ino*, made when they are missing; NULL when there is no room."""
        cdef uint64_t mask = self.files_room - 1
        cdef uint64_t at = (ino * 0x9E3779B97F4A7C15ULL >> 20) & mask
        cdef FileStats *fresh = NULL
        cdef FileStats *found
        while True:
            found = <FileStats *>row_load(&self.files[at])
            if found == NULL:
                if fresh == NULL:
                    # one row in two stays free: a search must come to an end
                    if stat_load(&self.files_used) * 2 >= self.files_room:
                        return NULL
                    fresh = <FileStats *>calloc(1, sizeof(FileStats))
                    if fresh == NULL:
                        return NULL
                    fresh.ino = ino
                if row_claim(&self.files[at], fresh):
                    stat_add(&self.files_used, 1)
                    return fresh
                continue        # somebody was faster: look again
            if found.ino == ino:
                free(fresh)
                return found
            at = (at + 1) & mask

    # ---------------------------------------------------------------- reading

    def snapshot(self):
        """All that is counted of the mount, summed over the threads.

        Sizes and latencies are lists by class; `read_ns` is the time of all reads together, and
        failed reads count in `block_count_read` as well.
        """
        cdef uint64_t hits[FOPS]
        cdef uint64_t errors[FOPS]
        cdef uint64_t sizes[SIZE_CLASSES]
        cdef uint64_t latencies[LATENCY_CLASSES]
        cdef uint64_t data_read = 0, read_ns = 0, n
        cdef unsigned int s, i, j
        cdef Shard *shard
        for i in range(FOPS):
            hits[i] = errors[i] = 0
        for i in range(SIZE_CLASSES):
            sizes[i] = 0
        for i in range(LATENCY_CLASSES):
            latencies[i] = 0
        for s in range(SHARDS):
            shard = &self.shards[s]
            for i in range(FOPS):
                hits[i] += stat_load(&shard.hits[i])
                errors[i] += stat_load(&shard.errors[i])
            for i in range(SIZE_CLASSES):
                for j in range(LATENCY_CLASSES):
                    n = stat_load(&shard.reads[i * LATENCY_CLASSES + j])
                    sizes[i] += n
                    latencies[j] += n
                    hits[FOP_READ] += n
                n = stat_load(&shard.failed_reads[i])
                sizes[i] += n
                errors[FOP_READ] += n
            data_read += stat_load(&shard.data_read)
            read_ns += stat_load(&shard.read_ns)
        return {
            "data_read": data_read,
            "read_ns": read_ns,
            "block_count_read": [sizes[i] for i in range(SIZE_CLASSES)],
            "fop_hits": [hits[i] for i in range(FOPS)],
            "fop_errors": [errors[i] for i in range(FOPS)],
            "read_latency_dist": [latencies[i] for i in range(LATENCY_CLASSES)],
        }

    def files_snapshot(self):
        """What is counted of each file, by its inode number; empty without *per_file*."""
        cdef uint64_t i
        cdef unsigned int j
        cdef FileStats *file
        found = {}
        if not self.per_file:
            return found
        for i in range(self.files_room):
            file = <FileStats *>row_load(&self.files[i])
            if file == NULL:
                continue
            hits = [stat_load(&file.hits[j]) for j in range(FOPS)]
            errors = [stat_load(&file.errors[j]) for j in range(FOPS)]
            found[file.ino] = {
                "total_fops": sum(hits) + sum(errors),
                "data_read": stat_load(&file.data_read),
                "block_count_read": [stat_load(&file.sizes[j]) for j in range(SIZE_CLASSES)],
                "fop_hits": hits,
                "fop_errors": errors,
            }
        return found

    def first_reads(self):
        """(inode, reads, first read in ns since the epoch) of files; none without *access_pattern*.
        """
        cdef uint64_t i
        cdef FileStats *file
        found = []
        if not self.access_pattern:
            return found
        for i in range(self.files_room):
            file = <FileStats *>row_load(&self.files[i])
            if file != NULL and file.first_read_ns != 0:
                found.append((file.ino, stat_load(&file.hits[FOP_READ]), file.first_read_ns))
        return found

    def take_latest_reads(self):
        """Inodes of the files read since the last call, ascending; none without *latest_read*."""
        cdef uint64_t i
        cdef FileStats *file
        found = []
        if not self.latest_read:
            return found
        for i in range(self.files_room):
            file = <FileStats *>row_load(&self.files[i])
            if file != NULL and stat_load32(&file.read_lately) and stat_swap(&file.read_lately, 0):
                found.append(file.ino)
        return sorted(found)
