"""The data file of one blob in the cache: `.blob.data` or `.blob.raw`.

Larger hits are answered straight from a read-only mapping that only the kernel reads (a writev to
/dev/fuse): a file cut under it gives EFAULT there, no signal here. Everything else goes through
pread and pwrite. The length is final from the start. Any thread; opening and closing by one.
"""

import contextlib
import os

from libc.errno cimport EAGAIN, EINTR, EIO, ENODATA, ENOSPC, ENXIO, EROFS, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from posix.unistd cimport close, fdatasync, fsync, lseek, pread, pwrite

cimport cython

from nydusd.cache.resident cimport SMALL_BYTES, ResidentPages, is_at_hand, read_from_memory
from nydusd.cache.target cimport Mark, ReadTarget, add_room, add_segment, mark, undo

from nydusd.base.errors import CacheError, check


cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    void *MAP_FAILED
    int PROT_READ, MAP_SHARED

cdef extern from "<unistd.h>" nogil:
    int SEEK_HOLE, SEEK_END

cdef extern from "<fcntl.h>" nogil:
    struct file_handle:
        uint32_t handle_bytes
        int handle_type
    int name_to_handle_at(int, const char *, file_handle *, int *, int)
    int AT_EMPTY_PATH
    int fcntl(int, int, ...)
    int fallocate(int, int, int64_t, int64_t)
    int F_SETLEASE, F_WRLCK, F_UNLCK, FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE

cdef extern from *:
    """
    static inline uint64_t sum_load(const uint64_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void sum_store(uint64_t *p, uint64_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    static inline int switch_load(const int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void switch_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int switch_take(int *p) { return __atomic_exchange_n(p, 0, __ATOMIC_ACQ_REL); }
    """
    uint64_t sum_load(const uint64_t *) noexcept nogil
    void sum_store(uint64_t *, uint64_t) noexcept nogil
    int switch_load(const int *) noexcept nogil
    void switch_store(int *, int) noexcept nogil
    int switch_take(int *) noexcept nogil

cdef enum:
    HANDLE_BYTES_MAX = 128  # Linux: MAX_HANDLE_SZ
    PAGE_BYTES = 4096


@cython.final
cdef class BlobFile:
    """The file at *path* with *size* bytes: made, or extended when it is shorter.

    With *read_only* it is opened as it is. `CacheError` when it is longer, or shorter and
    read-only; `OSError` when it cannot be opened or extended.
    """

    def __cinit__(self, path, uint64_t size, bint read_only=False):
        self.path = path
        self.size = size
        self.base = NULL
        self.pages = None
        self.writable = not read_only
        self.solid = 0
        self.blocks_seen = 0
        self.unsynced = self.stored = 0
        self.barrier_due = 0
        for i in range(BARRIER_FILES):
            self.barrier[i] = -1
        self.fd = -1
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC if read_only else
                          os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self.fit()
        self.map()

    cdef int fit(self) except -1:
        """Hold the file against its length; a shorter one is extended, sparse."""
        length = os.fstat(self.fd).st_size
        if self.size == 0:
            return 0        # nobody knows it (v5 without extended blob table)
        if length > self.size or (length < self.size and not self.writable):
            raise CacheError(
                f"cache file {self.path} has {length} bytes, {self.size} are due: it is of another "
                f"blob; remove it and its chunk map while no daemon uses the directory")
        if length < self.size:
            os.ftruncate(self.fd, self.size)
        return 0

    cdef int map(self) except -1:
        cdef void *base
        if self.size == 0:
            return 0
        base = mmap(NULL, self.size, PROT_READ, MAP_SHARED, self.fd, 0)
        if base == MAP_FAILED:
            check(-errno, "mmap of %s", self.path)
        self.base = <uint8_t *>base
        self.pages = ResidentPages(self.fd, <size_t>base, self.size)
        return 0

    def __dealloc__(self):
        self.drop()

    def close(self):
        """Unmap and close; nobody may hold a segment of it any more."""
        self.drop()

    cdef void drop(self) noexcept:
        cdef int i
        if self.base != NULL:
            munmap(self.base, self.size)
            self.base = NULL
        self.pages = None
        if self.fd >= 0:
            close(self.fd)
            self.fd = -1
        for i in range(BARRIER_FILES):
            if self.barrier[i] >= 0:
                close(self.barrier[i])
                self.barrier[i] = -1

    cdef int read(self, uint64_t off, uint64_t n, ReadTarget *target) noexcept nogil:
        cdef int rc
        if off > self.size or n > self.size - off:
            return -EIO
        if target.copy_only or self.base == NULL:
            return self.copy(off, n, target)
        if self.pages.is_hot(off, n):
            return add_segment(target, self.base + off, n)
        if n > SMALL_BYTES:
            target.is_unseen |= not is_at_hand(self.fd, off, n)
            self.pages.count_mapped(n)
        elif not self.pages.is_mapped(off):
            target.is_unseen = True
            if self.pages.visit(off):
                self.pages.count_mapped(0)
            else:
                rc = self.copy(off, n, target)
                self.pages.count_copy()
                if rc != -EAGAIN:
                    return rc
                # The mapping lets the carrier see that it will wait.
        return add_segment(target, self.base + off, n)

    cdef int copy(self, uint64_t off, uint64_t n, ReadTarget *target) noexcept nogil:
        """Append a copy; without *copy_only* just of what the page cache has, else -EAGAIN."""
        cdef Mark start = mark(target)
        cdef uint8_t *room = add_room(target, n)
        if room == NULL:
            return -EIO
        if target.copy_only or self.base == NULL:
            return 0 if self.load(off, room, n) == 0 else -ENODATA
        if read_from_memory(self.fd, off, room, n):
            return 0
        undo(target, &start)
        return -EAGAIN

    cdef int load(self, uint64_t off, uint8_t *out, uint64_t n) noexcept nogil:
        cdef int64_t done
        while n > 0:
            done = pread(self.fd, out, n, off)
            if done < 0 and errno == EINTR:
                continue
            if done <= 0:
                return -ENODATA if done == 0 else -errno
            out += done
            off += done
            n -= done
        return 0

    cdef bint holds(self, uint64_t off, uint64_t n) noexcept nogil:
        cdef uint64_t run = sum_load(&self.solid)
        cdef int64_t end
        if self.size > 0 and (off > self.size or n > self.size - off):
            return False
        if n == 0 or ((run >> 32) * PAGE_BYTES <= off
                      and off + n <= (run & <uint64_t>0xffffffff) * PAGE_BYTES):
            return True
        end = lseek(self.fd, off, SEEK_HOLE)
        if end < 0:
            return errno != ENXIO       # cut; else nobody can tell
        if <uint64_t>end < off + n:
            return False
        if <uint64_t>end // PAGE_BYTES <= <uint64_t>0xffffffff:
            sum_store(&self.solid, ((off + PAGE_BYTES - 1) // PAGE_BYTES) << 32
                      | <uint64_t>end // PAGE_BYTES)
        return True

    cdef int store(self, uint64_t off, const uint8_t *data, uint64_t n) noexcept nogil:
        cdef int64_t done
        cdef int rc
        if not switch_load(&self.writable):
            return -EROFS
        if self.size > 0 and (off > self.size or n > self.size - off):
            return -EIO         # a longer file would be refused at the next open
        if switch_load(&self.barrier_due):
            rc = self.pass_barrier()
            if rc != 0:
                return rc
        # A file that somebody has cut would be made long again by the write, with holes where set
        # bits promise bytes.
        if self.size > 0 and lseek(self.fd, 0, SEEK_END) < <int64_t>self.size:
            return -ENODATA
        while n > 0:
            done = pwrite(self.fd, data, n, off)
            if done < 0 and errno == EINTR:
                continue
            if done <= 0:
                return -ENOSPC if done == 0 else -errno
            data += done
            off += done
            n -= done
        switch_store(&self.unsynced, 1)
        switch_store(&self.stored, 1)
        return 0

    cdef int pass_barrier(self) noexcept nogil:
        """The small files beside this one reach the disk before the first bit can be set."""
        cdef int i
        for i in range(BARRIER_FILES):
            if self.barrier[i] >= 0 and fsync(self.barrier[i]) != 0:
                return -errno
        switch_store(&self.barrier_due, 0)
        return 0

    def sync_first(self, fds):
        """Have the files *fds* on the disk before anything is kept here; they become this file's.

        Called before the first store. A list of at most BARRIER_FILES.
        """
        cdef int i
        if len(fds) > BARRIER_FILES:
            raise ValueError(f"{len(fds)} files to sync first, at most {BARRIER_FILES}")
        for i, fd in enumerate(fds):
            self.barrier[i] = fd
        self.barrier_due = 1

    def note_unsynced(self):
        """Somebody has written here what may not have reached the disk."""
        switch_store(&self.unsynced, 1)

    def take_unsynced(self):
        """Whether anything was kept since the last call."""
        return switch_take(&self.unsynced) != 0

    def take_stored(self):
        """Whether this process has stored anything here since the last call."""
        return switch_take(&self.stored) != 0

    def sync(self):
        """What has been kept is on the disk when this returns; `OSError` when it is lost."""
        cdef int rc
        with nogil:
            rc = fdatasync(self.fd)
        if rc != 0:
            check(-errno, "fdatasync of %s", self.path)

    def note_time(self):
        """Remember this moment as that of the last use, for who opens the directory later."""
        with contextlib.suppress(OSError):
            os.utime(self.fd)

    def identity(self):
        """What tells this file from any other that has or will have its name."""
        return identity_of(self.fd)

    def is_in_place(self):
        """Whether the file still has its name in the directory."""
        try:
            return os.path.samestat(os.fstat(self.fd), os.stat(self.path))
        except OSError:
            return False

    def look_after_pages(self):
        """Let fast small reads map whole parts of the file: `cool_pages` will be called."""
        if self.pages is not None:
            self.pages.look_after()

    def cool_pages(self):
        """Unmap what fast small reads have mapped, if there were none since the last call."""
        if self.pages is not None:
            self.pages.cool()

    def watch(self, watches):
        """Have *watches* (`base.inotify`) tell of changes of the file; the number it has there."""
        return watches.add(self.fd)

    def has_shrunk(self):
        """Whether blocks have gone since the last call: somebody cut it or punched holes."""
        blocks = os.fstat(self.fd).st_blocks
        shrunk = blocks < self.blocks_seen
        self.blocks_seen = blocks
        return shrunk

    def doubt_holes(self):
        """Forget where the file is known to have none."""
        sum_store(&self.solid, 0)

    cdef void stop_writing(self) noexcept nogil:
        switch_store(&self.writable, 0)

    cdef bint lock_out(self) noexcept nogil:
        return fcntl(self.fd, F_SETLEASE, F_WRLCK) == 0

    cdef void let_in(self) noexcept nogil:
        fcntl(self.fd, F_SETLEASE, F_UNLCK)

    cdef int punch(self, uint64_t off, uint64_t n) except -1:
        cdef uint64_t start = (off + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1)
        cdef uint64_t end = off + n
        cdef int rc = 0
        # What follows the last chunk of a page is padding, or another chunk in a blob that is not
        # aligned: only whole pages go.
        if end != self.size:
            end &= ~<uint64_t>(PAGE_BYTES - 1)
        if end <= start:
            return 0
        sum_store(&self.solid, 0)
        with nogil:
            if fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, start,
                         end - start) != 0:
                rc = -errno
        if rc != 0:
            check(rc, "a hole in %s", self.path)
        return 0

    def stop(self):
        """Keep nothing here any more."""
        self.stop_writing()

    @property
    def keeps(self):
        """Whether fetched bytes may be written here."""
        return switch_load(&self.writable) != 0


def identity_of(int fd):
    """Bytes that name the file behind *fd* in its file system, and no later one of its number.

    The handle that file servers give out: number and generation. Where the file system has none,
    the number alone.
    """
    cdef uint8_t room[HANDLE_BYTES_MAX + 8]
    cdef file_handle *handle = <file_handle *>room
    cdef int mount
    handle.handle_bytes = HANDLE_BYTES_MAX
    if name_to_handle_at(fd, b"", handle, &mount, AT_EMPTY_PATH) != 0:
        return b"ino" + os.fstat(fd).st_ino.to_bytes(8, "little")
    return (<const char *>room)[:sizeof(file_handle) + handle.handle_bytes]


def has_data(path, uint64_t size):
    """Whether the file at *path* can hold what a chunk map promises.

    False when it is missing, shorter than *size*, or without one allocated block: deleted, cut,
    or made anew by somebody after it was deleted.
    """
    try:
        state = os.stat(path)
    except FileNotFoundError:
        return False
    return state.st_size >= size and (state.st_blocks > 0 or size == 0)
