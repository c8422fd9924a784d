"""The answers of a read-only file system as Python values: the lower tree of an overlay.

Names, attributes and data come from the `Filesystem` that would serve them in a mount of its own;
here they are asked for from Python, and data is copied into files. Any thread; `copy` waits for
data as long as it takes, everything else is answered from memory.
"""

import time

import cython
from libc.errno cimport EINTR, EIO, ENOENT, ENOSYS, errno
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy, memset

from nydusd.base.parking cimport counter_of
from nydusd.fs.filesystem cimport Filesystem
from nydusd.fs.op cimport (
    OP_DONE, READ_AGAIN, READ_ANSWERED, READ_CLAIMED, READ_DONE, READ_MISSING, SPAN_ROOM,
    Attributes, AttrOp, DirOp, LinkOp, ListedEntry, LookupOp, ReadOp, ReadTarget, XattrOp, iovec,
)

from nydusd.base.errors import check
from nydusd.fs.stat import Entry, Stat


cdef extern from "<unistd.h>" nogil:
    ssize_t pwrite(int, const void *, size_t, long)

cdef enum:
    PIECE_BYTES = 1 << 20       # what one read may ask for
    GRAIN_BYTES = 4096          # shorter runs of zeros are written, longer ones left as holes
    TARGET_ROOM = 4096          # of a symbolic link (PATH_MAX)
    XATTR_ROOM = 65536          # of a value and of a list of names (linux: limits.h)
    CLAIM_WAIT_MS = 2000        # for somebody else's fetch, as a mount waits
    ROUNDS = 128                # of "look again", after which a mount gives up as well

cdef uint8_t zeros[GRAIN_BYTES]     # never written

# One read and where its bytes are gathered; `target.owner` points here.
cdef struct Reading:
    ReadOp op
    uint8_t *data           # owned by the caller: PIECE_BYTES
    int32_t result          # of the answer


cdef Stat_of(const Attributes *attr):
    return Stat(
        attr.ino, attr.mode, attr.size, attr.blocks, attr.nlink, attr.uid, attr.gid, attr.rdev,
        attr.mtime * 1_000_000_000 + attr.mtime_nsec, 0)


cdef int gather(Reading *reading) noexcept nogil:
    """Copy the segments into one piece: 0, -EIO when they are more than was asked for."""
    cdef size_t done = 0
    cdef uint32_t i
    cdef iovec *segment
    for i in range(reading.op.target.iov_count):
        segment = &reading.op.target.iov[i]
        if segment.iov_len > reading.op.size - done:
            return -EIO
        memcpy(reading.data + done, segment.iov_base, segment.iov_len)
        done += segment.iov_len
    return 0


cdef void take_answer(ReadTarget *target, int32_t result) noexcept nogil:
    cdef Reading *reading = <Reading *>target.owner
    reading.result = gather(reading) if result == 0 else result


cdef int list_entry(DirOp *op, const ListedEntry *entry) noexcept with gil:
    try:
        (<list>op.owner).append(
            Entry(entry.name[:entry.name_len], entry.shown_ino, entry.next_offset, entry.kind))
    except MemoryError:
        return 1
    return 0


cdef int write_run(int fd, const uint8_t *data, size_t size, uint64_t offset) noexcept nogil:
    cdef ssize_t n
    while size > 0:
        n = pwrite(fd, data, size, <long>offset)
        if n < 0:
            if errno == EINTR:
                continue
            return -errno
        data += n
        size -= n
        offset += n
    return 0


cdef int write_data(int fd, const uint8_t *data, size_t size, uint64_t offset) noexcept nogil:
    """Write *size* bytes at *offset*, but whole grains of zeros: the file is new and has none."""
    cdef size_t start = 0, end = 0, grain
    cdef int rc
    while end < size:
        grain = min(<size_t>GRAIN_BYTES, size - end)
        if memcmp(data + end, zeros, grain) == 0:
            rc = write_run(fd, data + start, end - start, offset + start)
            if rc != 0:
                return rc
            start = end + grain
        end += grain
    return write_run(fd, data + start, end - start, offset + start)


@cython.final
cdef class LowerTree:
    """What *filesystem* holds; inode numbers are its own."""

    cdef Filesystem filesystem
    cdef readonly unsigned long long root_ino

    def __cinit__(self, Filesystem filesystem not None):
        self.filesystem = filesystem
        self.root_ino = filesystem.root_ino

    def find(self, uint64_t parent, bytes name not None):
        """The `Stat` of *name* in directory *parent*, or None; `OSError`."""
        cdef LookupOp op
        cdef int rc
        memset(&op, 0, sizeof(op))
        op.ino = parent
        op.name = name
        op.name_len = len(name)
        with nogil:
            rc = self.filesystem.lookup(&op)
        if rc == OP_DONE:
            return None if op.attr.ino == 0 else Stat_of(&op.attr)
        if rc == -ENOENT:
            return None
        check(rc if rc < 0 else -EIO, "lookup of %r in inode %d", name, parent)

    def stat(self, uint64_t ino):
        """The `Stat` of *ino*; `OSError`."""
        cdef AttrOp op
        cdef int rc
        memset(&op, 0, sizeof(op))
        op.ino = ino
        with nogil:
            rc = self.filesystem.getattr(&op)
        check(-EIO if rc > 0 else rc, "attributes of inode %d", ino)
        op.attr.ino = ino
        return Stat_of(&op.attr)

    def read_link(self, uint64_t ino):
        """Where the symbolic link *ino* leads; `OSError`."""
        cdef LinkOp op
        cdef char buf[TARGET_ROOM]
        cdef int rc
        memset(&op, 0, sizeof(op))
        op.ino = ino
        op.buf = buf
        op.room = TARGET_ROOM
        with nogil:
            rc = self.filesystem.readlink(&op)
        check(-EIO if rc > 0 else rc, "target of inode %d", ino)
        return buf[:op.length]

    def entries(self, uint64_t ino):
        """Every `Entry` of directory *ino*, "." and ".." as well; `OSError`."""
        cdef DirOp op
        cdef list found = []
        cdef int rc
        memset(&op, 0, sizeof(op))
        op.ino = ino
        op.emit = list_entry
        op.owner = <void *>found
        with nogil:
            rc = self.filesystem.readdir(&op)
        check(-EIO if rc > 0 else rc, "entries of inode %d", ino)
        return found

    cdef bytes xattr(self, uint64_t ino, bytes name):
        cdef XattrOp op
        cdef int rc
        cdef char *buf = <char *>malloc(XATTR_ROOM)
        if buf == NULL:
            raise MemoryError
        try:
            memset(&op, 0, sizeof(op))
            op.ino = ino
            op.buf = buf
            op.room = XATTR_ROOM
            if name is not None:
                op.name = name
                op.name_len = len(name)
            with nogil:
                rc = self.filesystem.xattr(&op)
            if rc == -ENOSYS and name is None:
                return b""      # this mount shows no attributes
            check(-EIO if rc > 0 else rc, "attribute %r of inode %d", name, ino)
            return buf[:op.length]
        finally:
            free(buf)

    def get_xattr(self, uint64_t ino, bytes name not None):
        """The value of an extended attribute; `OSError`."""
        return self.xattr(ino, name)

    def list_xattrs(self, uint64_t ino):
        """The names of all extended attributes; none where the mount shows none."""
        return [name for name in self.xattr(ino, None).split(b"\0") if name]

    cdef int drive(self, Reading *reading) except? -1:
        """Drive one read to its end, as a carrier does; 0 or -errno."""
        cdef ReadOp *op = &reading.op
        cdef int rc, rounds = 0
        while rounds < ROUNDS:
            rounds += 1
            op.target.iov_count = 0
            op.target.buf_used = op.target.length = 0
            with nogil:
                rc = self.filesystem.read(op)
                if rc == READ_DONE:
                    return gather(reading)
            if rc == READ_CLAIMED:
                if waits_in_vain(op.target.wait_on, op.target.wait_seen):
                    op.target.impatient = True
                continue
            if rc != READ_MISSING:
                return rc if rc < 0 else -EIO
            with nogil:
                rc = self.filesystem.fetch(op)
            if rc == READ_ANSWERED:
                return reading.result
            if rc != READ_AGAIN:
                return rc if rc < 0 else -EIO
        return -EIO

    cdef object take(self, uint64_t ino, uint64_t offset, uint32_t size, int fd):
        """Read at most PIECE_BYTES: into *fd*, and how many, or with -1 the bytes themselves."""
        cdef Reading reading
        cdef int rc = 0
        cdef iovec *iov = <iovec *>malloc(SPAN_ROOM * sizeof(iovec))
        cdef uint8_t *buf = <uint8_t *>malloc(PIECE_BYTES)
        memset(&reading, 0, sizeof(reading))
        reading.data = <uint8_t *>malloc(PIECE_BYTES)
        try:
            if iov == NULL or buf == NULL or reading.data == NULL:
                raise MemoryError
            reading.op.ino = ino
            reading.op.offset = offset
            reading.op.size = min(size, <uint32_t>PIECE_BYTES)
            reading.op.target.iov = iov
            reading.op.target.iov_room = SPAN_ROOM
            reading.op.target.buf = buf
            reading.op.target.buf_room = PIECE_BYTES
            # No segment may point into a cache file that somebody could cut under us.
            reading.op.target.copy_only = True
            reading.op.target.answer = take_answer
            reading.op.target.owner = &reading
            check(self.drive(&reading), "read of inode %d at %d", ino, offset)
            if fd < 0:
                return (<const char *>reading.data)[:reading.op.target.length]
            with nogil:
                rc = write_data(fd, reading.data, reading.op.target.length, offset)
            check(rc, "copy of inode %d at %d", ino, offset)
            return reading.op.target.length
        finally:
            free(iov)
            free(buf)
            free(reading.data)

    def read(self, uint64_t ino, uint64_t offset, uint32_t size):
        """At most *size* bytes of file *ino* (1 MiB of them) at *offset*; `OSError`."""
        return self.take(ino, offset, size, -1)

    def copy(self, uint64_t ino, uint64_t offset, uint32_t size, int fd):
        """Copy at most *size* bytes of file *ino* (1 MiB of them) to the same place of *fd*.

        How many bytes that were: fewer only at the end of the file. Zeros are left as holes where
        they fill a page: the file behind *fd* is new. `OSError` of the image, or of *fd*.
        """
        return self.take(ino, offset, size, fd)


cdef bint waits_in_vain(const uint64_t *counter, uint64_t seen) except? -1:
    """Until the counter moves or CLAIM_WAIT_MS have passed; whether it was in vain."""
    deadline = time.monotonic() + CLAIM_WAIT_MS / 1000
    while counter_of(counter) == seen:
        if time.monotonic() > deadline:
            return True
        time.sleep(0.001)
    return False
