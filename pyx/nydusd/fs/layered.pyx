"""Open files of two kinds: of a host directory, and of a file system below it.

Reads and writes of what is open take no GIL: a handle is a number in a table that says which host
descriptor is behind it, or which inode of the lower file system. A file that is copied up while it
is open for reading gets its descriptor in the table, and its readers see what is written from then
on. Everything else, and handles that this process has not given out, goes to Python's methods.
"""

import random

from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset
from posix.stat cimport S_ISGID, S_ISUID, fstat, struct_stat

from nydusd.cache.target cimport READ_DONE, READ_MISSING, add_segment
from nydusd.fs.filesystem cimport Filesystem, PyFilesystem
from nydusd.fs.op cimport OP_DONE, WRITE_FILE, AttrOp, ChangeOp, ReadOp

cdef extern from "<unistd.h>" nogil:
    ssize_t pread(int, void *, size_t, int64_t)
    ssize_t pwrite(int, const void *, size_t, int64_t)

cdef extern from *:
    """
    static inline int fd_load(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void fd_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline void *block_load(void *p)
        { return __atomic_load_n((void **)p, __ATOMIC_ACQUIRE); }
    static inline void block_store(void *p, void *v)
        { __atomic_store_n((void **)p, v, __ATOMIC_RELEASE); }
    """
    int fd_load(int *) noexcept nogil
    void fd_store(int *, int) noexcept nogil
    void *block_load(void *) noexcept nogil
    void block_store(void *, void *) noexcept nogil

cdef enum:
    BLOCK_FILES = 1024          # open files of one block of the table
    BLOCKS = 1024
    SERIES_SHIFT = 32
    FROM_LOWER = -1             # of OpenFile.fd
    CLOSED = -2

cdef uint64_t FOR_EVER = 1ULL << 32     # s

cdef struct OpenFile:
    int fd                      # atomic; owned by whoever opened it
    uint64_t lower_ino          # FROM_LOWER: what is read; set before the handle is given out


cdef bint has_privileges(int fd) noexcept nogil:
    """Whether a write to *fd* has something to take away: set-user-id and set-group-id bits."""
    cdef struct_stat found
    return fstat(fd, &found) != 0 or found.st_mode & (S_ISUID | S_ISGID) != 0


cdef class LayeredFiles(PyFilesystem):
    """Reads and writes of a file system above *lower*; counts what *lower* counts."""

    cdef Filesystem lower
    cdef OpenFile *blocks[BLOCKS]   # owned; atomic, set once each
    cdef uint64_t series            # upper half of every handle, those of a predecessor differ
    cdef uint64_t used              # handles that were given out, guarded by the GIL
    cdef list unused                # handles below `used` that are closed
    cdef int root_fd                # borrowed: the directory that is the root
    cdef uint32_t root_links        # 0: as the host counts them

    def __cinit__(self, Filesystem lower not None, *args, **kwargs):
        self.lower = lower
        self.root_fd = -1
        self.series = <uint64_t>random.getrandbits(31) << SERIES_SHIFT
        self.stats = lower.stats
        self.unused = []

    def __dealloc__(self):
        for i in range(BLOCKS):
            free(self.blocks[i])

    def show_root(self, int fd, uint32_t links=0):
        """Show the host directory of *fd*, which stays open, as the root; before the first request.

        Its attributes are answered without the GIL and stay in the kernel, which changes them
        itself: a supervisor that looks at the mountpoint must not wait for a daemon that has died,
        nor the daemon's own look keep one alive that is killed.
        """
        self.root_fd = fd
        self.root_links = links

    cdef int getattr(self, AttrOp *op) noexcept nogil:
        cdef struct_stat found
        if op.ino != self.root_ino or self.root_fd < 0:
            return PyFilesystem.getattr(self, op)
        if fstat(self.root_fd, &found) != 0:
            return -errno
        memset(&op.attr, 0, sizeof(op.attr))
        op.attr.ino = op.ino
        op.attr.size = found.st_size
        op.attr.blocks = found.st_blocks
        op.attr.mode = found.st_mode
        op.attr.nlink = self.root_links if self.root_links != 0 else <uint32_t>found.st_nlink
        op.attr.uid = found.st_uid
        op.attr.gid = found.st_gid
        op.attr.atime, op.attr.atime_nsec = found.st_atim.tv_sec, found.st_atim.tv_nsec
        op.attr.mtime, op.attr.mtime_nsec = found.st_mtim.tv_sec, found.st_mtim.tv_nsec
        op.attr.ctime, op.attr.ctime_nsec = found.st_ctim.tv_sec, found.st_ctim.tv_nsec
        op.attr_valid = FOR_EVER
        return OP_DONE

    cdef OpenFile *open_file_of(self, uint64_t handle) noexcept nogil:
        """The row of *handle*, NULL when there is none in use."""
        cdef OpenFile *block
        handle ^= self.series
        if handle == 0 or handle >= BLOCKS * BLOCK_FILES:
            return NULL
        block = <OpenFile *>block_load(&self.blocks[handle // BLOCK_FILES])
        if block == NULL or fd_load(&block[handle % BLOCK_FILES].fd) == CLOSED:
            return NULL
        return &block[handle % BLOCK_FILES]

    cdef uint64_t fresh_handle(self) except 0:
        cdef OpenFile *block
        cdef uint64_t handle
        if self.unused:
            return self.unused.pop()
        handle = self.used + 1      # 0 is no handle
        if handle >= BLOCKS * BLOCK_FILES:
            raise OSError(23, "too many open files in one mount")
        if self.blocks[handle // BLOCK_FILES] == NULL:
            block = <OpenFile *>calloc(BLOCK_FILES, sizeof(OpenFile))
            if block == NULL:
                raise MemoryError
            for i in range(BLOCK_FILES):
                block[i].fd = CLOSED
            block_store(&self.blocks[handle // BLOCK_FILES], block)
        self.used = handle
        return handle

    def new_handle(self, int fd, uint64_t lower_ino=0):
        """A handle whose reads and writes go to *fd*, or for -1 reads to *lower_ino* below."""
        cdef uint64_t handle = self.fresh_handle()
        cdef OpenFile *row = &self.blocks[handle // BLOCK_FILES][handle % BLOCK_FILES]
        row.lower_ino = lower_ino
        fd_store(&row.fd, fd)
        return self.series | handle

    def descriptor(self, uint64_t handle):
        """What *handle* reads and writes: a descriptor, -1 the lower file, None unknown."""
        cdef OpenFile *row = self.open_file_of(handle)
        return None if row == NULL else fd_load(&row.fd)

    def set_descriptor(self, uint64_t handle, int fd):
        """Have a *handle* of a lower file read *fd* from now on."""
        cdef OpenFile *row = self.open_file_of(handle)
        if row != NULL:
            fd_store(&row.fd, fd)

    def drop_handle(self, uint64_t handle):
        """Forget *handle*, which nobody uses any more; its descriptor, -1 when it has none."""
        cdef OpenFile *row = self.open_file_of(handle)
        if row == NULL:
            return -1
        fd = fd_load(&row.fd)
        fd_store(&row.fd, CLOSED)
        self.unused.append(handle ^ self.series)
        return fd

    cdef int read_descriptor(self, ReadOp *op, int fd) noexcept nogil:
        cdef uint8_t *buf = op.target.buf + op.target.buf_used
        cdef size_t done = 0
        cdef ssize_t n
        if op.size > op.target.buf_room - op.target.buf_used:
            return -EIO
        while done < op.size:
            n = pread(fd, buf + done, op.size - done, <int64_t>(op.offset + done))
            if n == 0:
                break
            if n > 0:
                done += n
            elif errno != EINTR:
                if done > 0:
                    break
                return -errno
        op.target.buf_used += done
        return add_segment(&op.target, buf, done)

    cdef int read(self, ReadOp *op) noexcept nogil:
        cdef OpenFile *row = self.open_file_of(op.handle)
        cdef int fd, rc
        if row == NULL:
            return READ_MISSING     # of another process: Python knows the file
        fd = fd_load(&row.fd)
        if fd == FROM_LOWER:
            op.ino = row.lower_ino
            return self.lower.read(op)
        rc = self.read_descriptor(op, fd)
        return READ_DONE if rc == 0 else rc

    cdef int fetch(self, ReadOp *op) noexcept nogil:
        cdef OpenFile *row = self.open_file_of(op.handle)
        if row == NULL:
            return PyFilesystem.fetch(self, op)
        op.ino = row.lower_ino
        return self.lower.fetch(op)

    cdef int change(self, ChangeOp *op) noexcept nogil:
        cdef OpenFile *row = NULL
        cdef int fd = FROM_LOWER
        if op.kind == WRITE_FILE:
            row = self.open_file_of(op.handle)
            if row != NULL:
                fd = fd_load(&row.fd)
        if fd >= 0 and not (op.kills_privileges and has_privileges(fd)):
            return self.write_descriptor(op, fd)
        return PyFilesystem.change(self, op)

    cdef int write_descriptor(self, ChangeOp *op, int fd) noexcept nogil:
        cdef size_t done = 0
        cdef ssize_t n
        while done < op.data_len:
            n = pwrite(fd, op.data + done, op.data_len - done, <int64_t>(op.offset + done))
            if n >= 0:
                done += n
            elif errno != EINTR:
                if done > 0:
                    break       # what fitted has been written
                return -errno
        op.done = done
        return OP_DONE
