"""Which pages of a mapped data file hits keep resident, and which of them are copied instead.

Pages that writev reads from a mapping count as resident memory of the daemon, though they are page
cache. So hits may map a few MiB, and a lone small read is copied, which costs less than the faults
of a mapping. Where small reads come fast, the windows that they fall in are mapped whole, which
costs less than their copies, as long as enough of them fall there (docs/decisions/0012).

Any thread; `cool` by one at a time.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

cimport cython

from nydusd.cache.target cimport iovec


cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *, size_t, int)
    int MADV_DONTNEED

cdef extern from "<sys/uio.h>" nogil:
    int64_t preadv2(int, const iovec *, int, int64_t, int)
    int RWF_NOWAIT

cdef extern from "<unistd.h>" nogil:
    long syscall(long, ...)
    long sysconf(int)
    int _SC_PHYS_PAGES

cdef extern from "<time.h>" nogil:
    struct timespec:
        long tv_sec
        long tv_nsec
    int CLOCK_MONOTONIC_COARSE
    int clock_gettime(int, timespec *)

# Linux 6.5 and 5.14; the C library's headers may be older. One number on all architectures.
cdef extern from *:
    """
    struct page_range { unsigned long long off, len; };
    struct page_counts { unsigned long long cached, dirty, writeback, evicted, lately; };
    enum { SYS_CACHESTAT = 451, POPULATE_READ = 22 };
    """
    struct page_range:
        uint64_t off
        uint64_t len
    struct page_counts:
        uint64_t cached
    enum:
        SYS_CACHESTAT
        POPULATE_READ

cdef extern from *:
    """
    static inline uint64_t sum_add(uint64_t *p, uint64_t n)
        { return __atomic_add_fetch(p, n, __ATOMIC_RELAXED); }
    static inline uint64_t sum_load(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void sum_store(uint64_t *p, uint64_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline uint64_t sum_swap(uint64_t *p, uint64_t v)
        { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); }
    static inline int switch_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void switch_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int switch_take(int *p) { return __atomic_exchange_n(p, 0, __ATOMIC_ACQ_REL); }
    static inline uint8_t *table_load(uint8_t *const *p)
        { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline int table_set(uint8_t **p, uint8_t *v)
        { uint8_t *none = 0;
          return __atomic_compare_exchange_n(p, &none, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE); }
    static inline uint8_t state_load(const uint8_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void state_store(uint8_t *p, uint8_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline int state_change(uint8_t *p, uint8_t was, uint8_t v)
        { return __atomic_compare_exchange_n(p, &was, v, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED); }
    """
    uint64_t sum_add(uint64_t *, uint64_t) noexcept nogil
    uint64_t sum_load(const uint64_t *) noexcept nogil
    void sum_store(uint64_t *, uint64_t) noexcept nogil
    uint64_t sum_swap(uint64_t *, uint64_t) noexcept nogil
    int switch_load(const int *) noexcept nogil
    void switch_store(int *, int) noexcept nogil
    int switch_take(int *) noexcept nogil
    uint8_t *table_load(uint8_t **) noexcept nogil
    bint table_set(uint8_t **, uint8_t *) noexcept nogil
    uint8_t state_load(const uint8_t *) noexcept nogil
    void state_store(uint8_t *, uint8_t) noexcept nogil
    bint state_change(uint8_t *, uint8_t, uint8_t) noexcept nogil

cdef enum:
    PAGE_BYTES = 4096
    FAULT_AROUND_BYTES = 1 << 16    # what one fault maps in (Linux: fault_around_bytes)
    # All files together may have mapped in this much, in even shares, before a share is unmapped
    # (the pages stay in page cache); hot windows are not part of it.
    MAPPED_BYTES = 4 << 20
    SHARE_BYTES_MIN = 1 << 18
    # A window costs 31 us to map, a copy 2 us more than a mapped page: it pays from some 20 reads.
    WINDOW_BYTES = 2 << 20
    WINDOWS_MAX = 1 << 16           # 128 GiB; what lies behind is copied
    HOT_COPIES = 2048               # so many small reads
    HOT_MS = 250                    # within this time make a file hot
    HOT_PART = 16                   # of the machine's memory that hot windows may map

cdef enum:  # what a window is
    UNKNOWN = 0
    BUSY = 1        # somebody is mapping it
    PARTLY = 2      # some of it is not in page cache
    WHOLE = 3       # all of it was mapped; + 1 for each read since the last cool(), about, up to
    KEPT = WHOLE + 20   # this, where it pays to leave it mapped

cdef uint64_t open_files = 0        # atomic
cdef uint64_t hot_bytes = 0         # atomic: mapped in windows, of all files
cdef uint64_t hot_bytes_max = <uint64_t>max(sysconf(_SC_PHYS_PAGES), 0) * PAGE_BYTES // HOT_PART


cpdef bint is_at_hand(int fd, uint64_t off, uint64_t n) noexcept nogil:
    """Whether the page cache has the *n* bytes at *off*, n > 0; false where the kernel cannot tell.

    Ten times as fast as mincore(2), which looks at each page.
    """
    cdef page_range asked
    cdef page_counts found
    cdef uint64_t end = off + n
    cdef uint8_t last
    asked.off = off // PAGE_BYTES * PAGE_BYTES
    asked.len = end - asked.off
    if syscall(SYS_CACHESTAT, fd, &asked, &found, <unsigned int>0) != 0:
        return False
    # Pages on their way from the disk are counted too: the last one comes last.
    return (found.cached >= (asked.len + PAGE_BYTES - 1) // PAGE_BYTES
            and read_from_memory(fd, end - 1, &last, 1))


cdef bint read_from_memory(int fd, uint64_t off, uint8_t *out, uint64_t n) noexcept nogil:
    cdef iovec part
    part.iov_base = out
    part.iov_len = n
    return preadv2(fd, &part, 1, off, RWF_NOWAIT) == <int64_t>n


@cython.final
cdef class ResidentPages:
    """Of the file behind *fd*, which is mapped at *base* with *size* bytes; both outlive this."""

    def __cinit__(self, int fd, size_t base, uint64_t size):
        self.base = <uint8_t *>base
        self.size = size
        self.fd = fd
        self.served = 0
        memset(self.visited, 0, sizeof(self.visited))
        self.is_looked_after = False
        self.copies = self.copies_since = 0
        self.hot = self.begun = 0
        self.windows = NULL
        sum_add(&open_files, 1)

    def __dealloc__(self):
        sum_add(&open_files, <uint64_t>-1)
        if self.windows != NULL:
            self.let_go(False)
            free(self.windows)

    cpdef bint is_hot(self, uint64_t off, uint64_t n) noexcept nogil:
        """Whether a read of *n* bytes at *off*, inside the file, is of a window that is mapped.

        A window of a hot file is mapped by its first read.
        """
        cdef uint64_t number = off // WINDOW_BYTES
        cdef uint8_t state
        if not switch_load(&self.hot) or number >= WINDOWS_MAX:
            return False
        if (off + n - 1) // WINDOW_BYTES != number:
            return False
        state = state_load(&self.windows[number])
        if state < WHOLE:
            return state == UNKNOWN and n <= SMALL_BYTES and self.heat(number)
        if state < KEPT:    # a store would take the line from the other workers
            state_change(&self.windows[number], state, state + 1)
        return True

    cdef bint heat(self, uint64_t number) noexcept nogil:
        """Map the window *number* whole, if all of it is in page cache and there is room."""
        cdef uint64_t start = number * WINDOW_BYTES
        cdef uint64_t n = self.window_size(number)
        if sum_load(&hot_bytes) + n > hot_bytes_max:
            return False
        if not state_change(&self.windows[number], UNKNOWN, BUSY):
            return False
        if sum_add(&hot_bytes, n) > hot_bytes_max:      # others were faster
            sum_add(&hot_bytes, -n)
            state_store(&self.windows[number], UNKNOWN)
            return False
        if (is_at_hand(self.fd, start, n)
                and madvise(self.base + start, n, POPULATE_READ) == 0):
            state_store(&self.windows[number], WHOLE)
            return True
        sum_add(&hot_bytes, -n)
        state_store(&self.windows[number], PARTLY)
        return False

    cpdef void count_copy(self) noexcept nogil:
        """Count a small read that was copied: many of them in a short time make the file hot."""
        cdef timespec now
        cdef uint64_t now_ms
        if sum_add(&self.copies, 1) % HOT_COPIES != 0 or not self.is_looked_after:
            return
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now)
        now_ms = <uint64_t>now.tv_sec * 1000 + now.tv_nsec // 1000000
        if now_ms - sum_swap(&self.copies_since, now_ms) <= HOT_MS:
            self.begin_hot()

    cdef void begin_hot(self) noexcept nogil:
        cdef uint8_t *table
        if table_load(&self.windows) == NULL:
            table = <uint8_t *>calloc(self.window_count(), 1)
            if table == NULL:
                return
            if not table_set(&self.windows, table):
                free(table)     # somebody else was faster
        if not switch_load(&self.hot):      # copies go on where there is no room
            switch_store(&self.begun, 1)
            switch_store(&self.hot, 1)

    cdef bint is_mapped(self, uint64_t off) noexcept nogil:
        cdef uint64_t place = (off // FAULT_AROUND_BYTES + 1) << 1
        return sum_load(&self.visited[(place >> 1) % NEIGHBOURHOODS]) == place | 1

    cdef bint visit(self, uint64_t off) noexcept nogil:
        cdef uint64_t place = (off // FAULT_AROUND_BYTES + 1) << 1
        cdef uint64_t *row = &self.visited[(place >> 1) % NEIGHBOURHOODS]
        cdef bint again = sum_load(row) == place
        sum_store(row, place | again)
        return again

    cpdef void count_mapped(self, uint64_t n) noexcept nogil:
        """Count a hit that maps in *n* bytes and what lies around them; trim when it is enough."""
        cdef uint64_t share
        cdef uint64_t total = sum_add(&self.served, n + FAULT_AROUND_BYTES)
        if total < SHARE_BYTES_MIN:
            return
        share = MAPPED_BYTES // (sum_load(&open_files) or 1)
        if total >= (share if share > SHARE_BYTES_MIN else SHARE_BYTES_MIN):
            sum_store(&self.served, 0)
            self.trim()

    cdef void trim(self) noexcept nogil:
        """Unmap the pages of earlier hits, all but the hot windows."""
        cdef uint8_t *table = table_load(&self.windows)
        cdef uint64_t start = 0
        cdef uint64_t number, end
        if table != NULL:
            for number in range(self.window_count()):
                if state_load(&table[number]) < WHOLE:
                    continue
                end = number * WINDOW_BYTES
                if end > start:
                    madvise(self.base + start, end - start, MADV_DONTNEED)
                start = end + WINDOW_BYTES
        if start < self.size:
            madvise(self.base + start, self.size - start, MADV_DONTNEED)

    cdef uint64_t window_count(self) noexcept nogil:
        """Of a file that is not empty: no other is mapped."""
        return min((self.size - 1) // WINDOW_BYTES + 1, <uint64_t>WINDOWS_MAX)

    cdef uint64_t window_size(self, uint64_t number) noexcept nogil:
        return min(<uint64_t>WINDOW_BYTES, self.size - number * WINDOW_BYTES)

    cdef void forget_partly(self) noexcept nogil:
        """Have windows looked at again: what was not in page cache may be by now."""
        cdef uint64_t number
        for number in range(self.window_count()):
            state_change(&self.windows[number], PARTLY, UNKNOWN)

    cdef bint let_go(self, bint keep) noexcept nogil:
        """Count windows as hot no more, with *keep* but those of many reads; whether one stays.

        The pages stay mapped.
        """
        cdef uint64_t number, n
        cdef uint8_t state
        cdef bint stays = False
        for number in range(self.window_count()):
            state = state_load(&self.windows[number])
            if state < WHOLE:
                continue
            n = self.window_size(number)
            # A page that was reclaimed would be waited for by a worker.
            if keep and state == KEPT and is_at_hand(self.fd, number * WINDOW_BYTES, n):
                state_store(&self.windows[number], WHOLE)
                stays = True
                continue
            while not state_change(&self.windows[number], state, UNKNOWN):
                state = state_load(&self.windows[number])   # a read was counted
            sum_add(&hot_bytes, -n)
        return stays

    def look_after(self):
        """Let windows become hot: somebody will call `cool` every few seconds."""
        self.is_looked_after = True

    def cool(self):
        """Unmap the hot windows that few reads fell in since the last call."""
        if table_load(&self.windows) == NULL:
            return
        with nogil:
            self.forget_partly()
            if not switch_take(&self.begun):
                if not self.let_go(True):
                    switch_store(&self.hot, 0)
                self.trim()

    @property
    def hot_bytes(self):
        """What hot windows have mapped, in bytes."""
        cdef uint64_t number, total = 0
        if table_load(&self.windows) == NULL:
            return 0
        for number in range(self.window_count()):
            if state_load(&self.windows[number]) >= WHOLE:
                total += self.window_size(number)
        return total
