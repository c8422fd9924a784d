"""RAFS: a bootstrap says what is where, a device gives the bytes; here they become a file system.

Everything but `fetch` answers without the GIL and without waiting. An inode that the image has
broken answers EIO, and is named in the log once, in a bounded number of lines. Called by the
carrier's workers, many at a time; nothing here changes after construction but the log's memory.
"""

import logging

import cython
from libc.errno cimport EINVAL, EIO, ENAMETOOLONG, ENOENT, ENOSYS, ERANGE
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy
from posix.unistd cimport getegid, geteuid

from nydusd.base.parking cimport monotonic_ms
from nydusd.cache.device cimport Device
from nydusd.cache.target cimport READ_DONE
from nydusd.fs.filesystem cimport Filesystem
from nydusd.fs.op cimport (
    OP_DONE, AttrOp, DirOp, LinkOp, ListedEntry, LookupOp, OpenOp, ReadOp, StatfsOp, XattrOp,
)
from nydusd.fs.stats cimport FsStats
from nydusd.rafs.bootstrap cimport (
    SPAN_ROOM, Attributes, Bootstrap, ChunkSpan, DirEntry, XattrEntry,
)

logger = logging.getLogger("nydusd")

cdef extern from *:
    """
    static inline uint64_t told_load(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void told_store(uint64_t *p, uint64_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    uint64_t told_load(uint64_t *) noexcept nogil
    void told_store(uint64_t *, uint64_t) noexcept nogil

cdef enum:
    TOLD_ROOM = 256             # broken inodes remembered as told
    TELL_INTERVAL_MS = 1000     # one line a second at most, whatever an image is made of
    FOLLOWING_ROOM = 256        # chunks fetched along with a read
    MODE_TYPE = 0o170000
    ROOT_MODE = 0o755
    # superblock flags (spec: rafs-format, superblock)
    FLAG_EXPLICIT_UID_GID = 0x10
    FLAG_HAS_XATTR = 0x20

cdef uint64_t FOR_EVER = 1ULL << 32     # s; image content does not change


@cython.final
cdef class RafsFs(Filesystem):
    """The image behind *bootstrap*, with its data from *device*.

    *start_time* (s since the epoch) stands for times that the image does not record. Attributes
    of *enable_xattr* images are listed whether or not the image says that it has some.
    *batch_size*: bytes that a missing read may fetch along (v5). *stats* counts what is asked.
    *trace* begins the trace of a missed read (`base.tracing.read_trace`), None = there are none.
    """

    cdef Bootstrap bootstrap
    cdef Device device
    cdef int64_t start_time
    cdef bint has_xattr
    cdef bint has_owners                # else every inode belongs to the daemon
    cdef uint64_t batch_size
    cdef object trace                   # for `fetch_traced`, else None
    cdef bint traced
    cdef uint64_t told[TOLD_ROOM]       # atomic; ino + 1 of the inodes that the log has named
    cdef uint64_t told_ms               # atomic; when the log was last told

    def __cinit__(self, Bootstrap bootstrap not None, Device device not None, *, double start_time,
                  bint enable_xattr=False, uint64_t batch_size=0, FsStats stats=None, trace=None):
        self.bootstrap = bootstrap
        self.stats = stats
        self.device = device
        self.start_time = <int64_t>start_time
        self.has_xattr = enable_xattr or bootstrap.flags & FLAG_HAS_XATTR != 0
        self.has_owners = bootstrap.flags & FLAG_EXPLICIT_UID_GID != 0
        self.batch_size = batch_size
        self.trace = trace
        self.traced = trace is not None
        self.root_ino = bootstrap.root_ino

    cdef int refuse(self, uint64_t ino, int code) noexcept nogil:
        """*code* itself; the first EIO of an inode is put into the log."""
        cdef uint64_t *row = &self.told[ino % TOLD_ROOM]
        cdef uint64_t now = <uint64_t>monotonic_ms()
        if code != -EIO or told_load(row) == ino + 1:
            return code
        if now - told_load(&self.told_ms) < TELL_INTERVAL_MS and told_load(&self.told_ms) != 0:
            return code
        told_store(&self.told_ms, now)
        told_store(row, ino + 1)
        self.tell(ino)
        return code

    cdef void tell(self, uint64_t ino) noexcept with gil:
        logger.error("inode %d cannot be served: its metadata or data in the image is damaged", ino)

    cdef int attributes(self, uint64_t ino, Attributes *attr) noexcept nogil:
        cdef int rc = self.bootstrap.attributes(ino, attr)
        if rc != 0:
            return self.refuse(ino, rc)
        attr.ino = ino
        if attr.mtime == 0:
            attr.mtime = self.start_time
        if not self.has_owners:
            attr.uid = geteuid()
            attr.gid = getegid()
        if ino == self.root_ino:
            attr.mode = (attr.mode & MODE_TYPE) | ROOT_MODE
        return 0

    cdef int lookup(self, LookupOp *op) noexcept nogil:
        cdef uint64_t ino = 0
        cdef int rc
        if op.name_len == 0 or memchr(op.name, b'/', op.name_len) != NULL:
            return -EINVAL
        op.entry_valid = op.attr_valid = FOR_EVER
        rc = self.bootstrap.lookup(op.ino, op.name, op.name_len, &ino)
        if rc == -ENAMETOOLONG:
            return rc
        if rc == -ENOENT:
            op.attr.ino = 0
            return OP_DONE
        if rc != 0:
            return self.refuse(op.ino, rc)
        rc = self.attributes(ino, &op.attr)
        # the name is there: "no such inode" is the image's mistake
        return self.refuse(ino, -EIO) if rc == -ENOENT else rc

    cdef int getattr(self, AttrOp *op) noexcept nogil:
        op.attr_valid = FOR_EVER
        return self.attributes(op.ino, &op.attr)

    cdef int readlink(self, LinkOp *op) noexcept nogil:
        return self.refuse(op.ino, self.bootstrap.readlink(op.ino, op.buf, op.room, &op.length))

    cdef int open(self, OpenOp *op) noexcept nogil:
        op.handle = 0
        op.keep_cache = op.cache_dir = op.stateless = True
        return OP_DONE

    cdef int read(self, ReadOp *op) noexcept nogil:
        cdef ChunkSpan spans[SPAN_ROOM]
        cdef uint32_t count = 0
        cdef int rc = self.bootstrap.spans(op.ino, op.offset, op.size, spans, SPAN_ROOM, &count)
        if rc != 0:
            return self.refuse(op.ino, rc)
        if count == 0:
            return READ_DONE
        return self.refuse(op.ino, self.device.read(spans, count, &op.target))

    cdef int fetch(self, ReadOp *op) noexcept nogil:
        return self.fetch_traced(op) if self.traced else self.fetch_data(op)

    cdef int fetch_traced(self, ReadOp *op) noexcept with gil:
        cdef int rc
        end = None
        try:
            end = self.trace(op.ino, op.offset, op.size)
        except BaseException:
            logger.exception("a read is not traced")
        with nogil:
            rc = self.fetch_data(op)        # *op* may be gone when it returns
        try:
            if end is not None:
                end(rc)
        except BaseException:
            logger.exception("a read is not traced")
        return rc

    cdef int fetch_data(self, ReadOp *op) noexcept nogil:
        cdef ChunkSpan spans[SPAN_ROOM]
        cdef ChunkSpan following[FOLLOWING_ROOM]
        cdef uint32_t count = 0, following_count = 0
        cdef int rc = self.bootstrap.spans(op.ino, op.offset, op.size, spans, SPAN_ROOM, &count)
        if rc != 0:
            return self.refuse(op.ino, rc)
        if self.batch_size > op.size:
            rc = self.bootstrap.following(op.ino, op.offset + op.size, self.batch_size - op.size,
                                          following, FOLLOWING_ROOM, &following_count)
            if rc != 0:
                following_count = 0     # what was asked for does not depend on it
        return self.device.fetch(spans, count, following, following_count, &op.target)

    cdef int readdir(self, DirOp *op) noexcept nogil:
        cdef DirEntry entry
        cdef ListedEntry listed
        cdef uint64_t cookie = op.offset
        cdef int rc
        while True:
            rc = self.bootstrap.next_entry(op.ino, cookie, &entry)
            if rc <= 0:
                return self.refuse(op.ino, rc)
            if self.list_entry(op, &entry, &listed) != 0:
                return OP_DONE
            if entry.next_cookie == cookie:
                return self.refuse(op.ino, -EIO)
            cookie = entry.next_cookie

    cdef int list_entry(self, DirOp *op, const DirEntry *entry,
                        ListedEntry *listed) noexcept nogil:
        """Hand one entry to the carrier: 0, 1 no room."""
        cdef bint is_dots = entry.name[0] == b'.' and (
            entry.name_len == 1 or (entry.name_len == 2 and entry.name[1] == b'.'))
        listed.name = entry.name
        listed.name_len = entry.name_len
        listed.next_offset = entry.next_cookie
        listed.kind = entry.kind
        listed.shown_ino = op.node_base | entry.ino
        listed.node_id = 0 if is_dots else listed.shown_ino
        listed.entry_valid = listed.attr_valid = FOR_EVER
        listed.has_attr = op.plus and not is_dots and self.attributes(
            entry.ino, &listed.attr) == 0
        if listed.has_attr and listed.kind == 0:
            listed.kind = listed.attr.mode >> 12
        return op.emit(op, listed)

    cdef int xattr(self, XattrOp *op) noexcept nogil:
        cdef const unsigned char *value = NULL
        cdef int rc
        if not self.has_xattr:
            return -ENOSYS
        if op.name == NULL:
            return self.refuse(op.ino, self.list_xattrs(op))
        rc = self.bootstrap.xattr(op.ino, op.name, op.name_len, &value, &op.length)
        if rc != 0:
            return self.refuse(op.ino, rc)
        if op.room == 0:
            return OP_DONE
        if op.length > op.room:
            return -ERANGE
        memcpy(op.buf, value, op.length)
        return OP_DONE

    cdef int list_xattrs(self, XattrOp *op) noexcept nogil:
        """All names, each with a NUL behind it."""
        cdef XattrEntry entry
        cdef uint64_t cookie = 0
        cdef size_t length = 0, need
        cdef int rc
        while True:
            rc = self.bootstrap.next_xattr(op.ino, cookie, &entry)
            if rc <= 0:
                op.length = length
                return rc
            need = <size_t>entry.prefix_len + entry.name_len + 1
            if op.room > 0:
                if need > op.room - length:
                    return -ERANGE
                memcpy(op.buf + length, entry.prefix, entry.prefix_len)
                memcpy(op.buf + length + entry.prefix_len, entry.name, entry.name_len)
                op.buf[length + need - 1] = 0
            length += need
            if entry.next_cookie == cookie:
                return -EIO
            cookie = entry.next_cookie

    cdef int statfs(self, StatfsOp *op) noexcept nogil:
        op.files = self.bootstrap.inodes_count
        op.block_size = 512
        op.name_max = 255
        return OP_DONE
