"""One file mapped into memory, with bounds-checked little-endian loads.

A file that somebody shortens while it is mapped raises SIGBUS at the next access. The guard
here turns that into zero pages and a flag: readers see zeros, bounds checks refuse them, and
`is_damaged` tells the caller that its answer must be an error. Any thread may load; one thread
opens and closes.
"""

import os

from libc.errno cimport EIO, errno
from libc.signal cimport SIGBUS
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy

from nydusd.base.errors import check


cdef extern from "<sys/mman.h>" nogil:
    void *c_mmap "mmap"(void *, size_t, int, int, int, long)
    int c_munmap "munmap"(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int MADV_DONTNEED
    int PROT_READ, PROT_WRITE, MAP_SHARED, MAP_PRIVATE, MAP_ANONYMOUS, MAP_FIXED

cdef extern from "<signal.h>" nogil:
    ctypedef struct sigset_t:
        pass
    ctypedef struct siginfo_t:
        void *si_addr
    struct sigaction_t "sigaction":
        void (*sa_sigaction)(int, siginfo_t *, void *) noexcept nogil
        sigset_t sa_mask
        int sa_flags
    int c_sigaction "sigaction"(int, sigaction_t *, sigaction_t *)
    int c_sigemptyset "sigemptyset"(sigset_t *)
    int SA_SIGINFO, SA_NODEFER, SA_ONSTACK

cdef extern from *:
    """
    static inline uint64_t guard_load(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void guard_store(uint64_t *p, uint64_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int guard_take(uint64_t *p) {
        uint64_t none = 0;
        return __atomic_compare_exchange_n(p, &none, 1, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    }
    """
    uint64_t guard_load(uint64_t *) noexcept nogil
    void guard_store(uint64_t *, uint64_t) noexcept nogil
    int guard_take(uint64_t *) noexcept nogil

cdef enum:
    GUARDS = 8192       # mappings guarded at a time; more are refused with ENFILE
    PAGE = 4096
    FAULT_AROUND_BYTES = 1 << 16    # what one page fault of a file maps, at most

# A row of the guard's table; the handler reads it, so every field is atomic.
cdef struct Guard:
    uint64_t base       # 0 free, 1 being filled, else the first address
    uint64_t end
    uint64_t damaged

cdef Guard guards[GUARDS]
cdef sigaction_t previous
cdef bint installed = False


cdef void on_sigbus(int number, siginfo_t *info, void *context) noexcept nogil:
    """Put a zero page under the address when it is in a guarded mapping, else as before."""
    cdef uint64_t address = <uint64_t><uintptr_t>info.si_addr
    cdef uint64_t base
    cdef int i
    for i in range(GUARDS):
        base = guard_load(&guards[i].base)
        if base > 1 and address >= base and address < guard_load(&guards[i].end):
            guard_store(&guards[i].damaged, 1)
            if c_mmap(<void *><uintptr_t>(address & ~<uint64_t>(PAGE - 1)), PAGE,
                      PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
                      -1, 0) != MAP_FAILED:
                return
            break
    c_sigaction(SIGBUS, &previous, NULL)    # not ours: the access repeats and takes its course


cdef int guard_range(uint64_t base, uint64_t size) noexcept nogil:
    """Index of a new row, or -1 when the table is full."""
    cdef int i
    for i in range(GUARDS):
        if guard_take(&guards[i].base):
            guard_store(&guards[i].end, base + size)
            guard_store(&guards[i].damaged, 0)
            guard_store(&guards[i].base, base)
            return i
    return -1


cdef int install_guard() except -1:
    """Install the handler, once; the one that was there is kept for faults that are not ours."""
    global installed
    cdef sigaction_t action
    if installed:
        return 0
    action.sa_sigaction = on_sigbus
    action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK
    c_sigemptyset(&action.sa_mask)
    if c_sigaction(SIGBUS, &action, &previous) != 0:
        check(-errno, "sigaction(SIGBUS)")
    installed = True
    return 0


cdef class Mapping:
    """The file behind *fd* (or *size* bytes of it) mapped, read-only unless *writable*.

    The descriptor is not kept. `OSError` when it cannot be mapped.
    """

    def __cinit__(self, int fd, size=None, bint writable=False):
        cdef void *base
        self.base = NULL
        self.guard = -1
        self.size = os.fstat(fd).st_size if size is None else size
        if self.size == 0:
            return
        install_guard()
        base = c_mmap(NULL, self.size, PROT_READ | PROT_WRITE if writable else PROT_READ,
                      MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            check(-errno, "mmap of %d bytes", self.size)
        self.base = <uint8_t *>base
        self.guard = guard_range(<uint64_t><uintptr_t>base, self.size)
        if self.guard < 0:
            self.close()
            check(-23, "more than %d mappings", GUARDS)     # ENFILE

    @staticmethod
    def of_bytes(const uint8_t[::1] data):
        """A private, anonymous copy of *data*, for what is not in a file of its own."""
        cdef Mapping mapping
        fd = os.memfd_create("nydusd", os.MFD_CLOEXEC)
        try:
            os.ftruncate(fd, data.shape[0])
            mapping = Mapping(fd, writable=True)
        finally:
            os.close(fd)
        if data.shape[0] > 0:
            memcpy(mapping.base, &data[0], data.shape[0])
        return mapping

    def __dealloc__(self):
        self.unmap()

    cdef void unmap(self) noexcept nogil:
        if self.guard >= 0:
            guard_store(&guards[self.guard].base, 0)
            self.guard = -1
        if self.base != NULL:
            c_munmap(self.base, self.size)
            self.base = NULL
        self.size = 0

    def close(self):
        """Unmap now; nobody may hold a borrowed pointer any more."""
        self.unmap()

    cdef const uint8_t *at(self, uint64_t off, uint64_t n) noexcept nogil:
        if off > self.size or n > self.size - off:
            return NULL
        return self.base + off

    cdef int load_u16(self, uint64_t off, uint16_t *out) noexcept nogil:
        cdef const uint8_t *p = self.at(off, sizeof(uint16_t))
        if p == NULL:
            return -EIO
        memcpy(out, p, sizeof(uint16_t))
        return 0

    cdef int load_u32(self, uint64_t off, uint32_t *out) noexcept nogil:
        cdef const uint8_t *p = self.at(off, sizeof(uint32_t))
        if p == NULL:
            return -EIO
        memcpy(out, p, sizeof(uint32_t))
        return 0

    cdef int load_u64(self, uint64_t off, uint64_t *out) noexcept nogil:
        cdef const uint8_t *p = self.at(off, sizeof(uint64_t))
        if p == NULL:
            return -EIO
        memcpy(out, p, sizeof(uint64_t))
        return 0

    cdef void rest(self, uint64_t off, uint64_t n) noexcept nogil:
        cdef uint64_t start = off - off % FAULT_AROUND_BYTES
        cdef uint64_t end
        if self.at(off, n) == NULL or n == 0:
            return
        end = (off + n + FAULT_AROUND_BYTES - 1) // FAULT_AROUND_BYTES * FAULT_AROUND_BYTES
        end = min(end, (self.size + PAGE - 1) // PAGE * PAGE)
        madvise(self.base + start, end - start, MADV_DONTNEED)

    cdef bint is_damaged(self) noexcept nogil:
        return self.guard >= 0 and guard_load(&guards[self.guard].damaged) != 0

    @property
    def damaged(self):
        """Whether the file was shortened under the mapping and an access met the gap."""
        return self.is_damaged()

    def read(self, uint64_t off, uint64_t n):
        """A copy of *n* bytes at *off*; `OSError(EIO)` past the end."""
        cdef const uint8_t *p = self.at(off, n)
        if p == NULL:
            check(-EIO, "%d bytes at %d of a mapping of %d", n, off, self.size)
        return (<const char *>p)[:n] if n else b""
