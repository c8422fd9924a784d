"""From request bytes to an operation, to the mount table, to reply bytes; and the INIT negotiation.

Knows the kernel's protocol and no file system. Every length is checked: a carrier may be a guest.
Called by worker threads, many at a time, without the GIL; each brings its own room for replies.
"""

import cython
from libc.errno cimport (
    E2BIG, EFAULT, EINVAL, ENOSYS, ENOTTY, EOPNOTSUPP, EPROTO,
)
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memset

from nydusd.fs.op cimport (
    OP_DONE, OP_UNKNOWN, READ_CLAIMED, READ_DONE, READ_MISSING, SPAN_ROOM, AttrOp, DirOp,
    LinkOp, ListedEntry, LookupOp, OpenOp, ReadOp, StatfsOp, XattrOp,
)
from nydusd.fs.stats cimport FOP_BATCH_FORGET, FOP_FORGET, FOPS
from nydusd.fs.vfs cimport Mount, Vfs
from nydusd.fuse.call cimport ANSWERED, Call, fill_entry, fill_attr, fill_open
from nydusd.fuse.changes cimport is_change, serve_change
from nydusd.fuse.deferred cimport DeferredReads
from nydusd.fuse.permits cimport Permits, waits_for_disk
from nydusd.fuse.reply cimport (
    REPLY_BYTES, ReplyPort, Room, free_room, new_room, note_request, reply_data, reply_error,
    reply_gathered, send_to_device,
)
from nydusd.fuse.wire cimport (
    FUSE_BATCH_FORGET, FUSE_DESTROY, FUSE_FORGET, FUSE_GETATTR, FUSE_GETXATTR, FUSE_INIT,
    FUSE_INTERRUPT, FUSE_IOCTL, FUSE_LISTXATTR, FUSE_LOOKUP, FUSE_NOTIFY_REPLY, FUSE_OPEN,
    FUSE_OPENDIR, FUSE_READ, FUSE_READDIR, FUSE_READDIRPLUS, FUSE_READLINK, FUSE_RELEASE,
    FUSE_RELEASEDIR, FUSE_STATFS, INIT_ASYNC_DIO, INIT_ASYNC_READ, INIT_AUTO_INVAL_DATA,
    INIT_BIG_WRITES, INIT_CACHE_SYMLINKS, INIT_DO_READDIRPLUS, INIT_EXPLICIT_INVAL_DATA, INIT_EXT,
    INIT_HANDLE_KILLPRIV_V2, INIT_IN_BEFORE_36, INIT_MAX_PAGES, INIT_NO_OPENDIR_SUPPORT,
    INIT_NO_OPEN_SUPPORT, INIT_OUT_BEFORE_23, INIT_OUT_BEFORE_5, INIT_PARALLEL_DIROPS,
    INIT_READDIRPLUS_AUTO, WIRE_MAJOR, WIRE_MINOR, AttrOut, Dirent, EntryOut, ForgetIn, ForgetOne,
    GetattrIn, GetxattrIn, GetxattrOut, InHeader, InitIn, InitOut, OpenIn, OpenOut, ReadIn,
    ReleaseIn, StatfsOut,
)


cdef extern from *:
    """
    static inline int flag_load(int *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void flag_store(int *p, int v) { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline int flag_add(int *p, int n) { return __atomic_add_fetch(p, n, __ATOMIC_RELAXED); }
    """
    int flag_load(int *) noexcept nogil
    void flag_store(int *, int) noexcept nogil
    int flag_add(int *, int) noexcept nogil

cdef enum:
    MAX_BACKGROUND = 65535
    CONGESTION = 49149
    MAX_WRITE = 1 << 20
    MAX_PAGES = 256
    BLOCK_SIZE = 4096
    BATCH_FORGET_HEAD = 8       # bytes before the nodes (count and padding)
    # Reads copied after one that could not be sent from a mapping: the file behind it was cut, and
    # the kernel has answered that read with EIO itself.
    COPIED_READS = 4096

cdef uint64_t ALWAYS_WANTED = (
    INIT_ASYNC_READ | INIT_BIG_WRITES | INIT_DO_READDIRPLUS | INIT_READDIRPLUS_AUTO |
    INIT_ASYNC_DIO | INIT_PARALLEL_DIROPS | INIT_MAX_PAGES | INIT_CACHE_SYMLINKS |
    INIT_EXPLICIT_INVAL_DATA | INIT_HANDLE_KILLPRIV_V2 | INIT_EXT)


# Where a listing is written.
cdef struct Listing:
    uint8_t *buf
    size_t room
    size_t used


cdef int append_entry(DirOp *op, const ListedEntry *entry, size_t before) noexcept nogil:
    """Write a dirent *before* bytes into the next record: 0, 1 no room."""
    cdef Listing *listing = <Listing *>op.owner
    cdef uint8_t *record = listing.buf + listing.used
    cdef Dirent *dirent = <Dirent *>(record + before)
    cdef size_t plain = before + sizeof(Dirent) + entry.name_len
    cdef size_t padded = (plain + 7) & ~<size_t>7
    if padded > listing.room - listing.used:
        return 1
    dirent.ino = entry.shown_ino
    dirent.next_offset = entry.next_offset
    dirent.name_len = <uint32_t>entry.name_len
    dirent.kind = entry.kind
    memcpy(record + before + sizeof(Dirent), entry.name, entry.name_len)
    memset(record + plain, 0, padded - plain)
    listing.used += padded
    return 0


cdef int emit_dirent(DirOp *op, const ListedEntry *entry) noexcept nogil:
    return append_entry(op, entry, 0)


cdef int emit_direntplus(DirOp *op, const ListedEntry *entry) noexcept nogil:
    """As `emit_dirent`, with attributes; a node id of 0 tells the kernel that there are none."""
    cdef Listing *listing = <Listing *>op.owner
    cdef EntryOut *out = <EntryOut *>(listing.buf + listing.used)
    if append_entry(op, entry, sizeof(EntryOut)) != 0:
        return 1
    if entry.has_attr:
        fill_entry(out, entry.node_id, &entry.attr, entry.entry_valid, entry.attr_valid)
        out.attr.ino = entry.shown_ino
    else:
        memset(out, 0, sizeof(EntryOut))
    return 0


@cython.final
cdef class Server:
    """Serves *vfs*; reads that must wait go to *deferred*.

    *zero_message_open*: file systems without state behind a handle make the kernel stop asking for
    OPEN and OPENDIR. Right when one image is all that will ever be mounted.
    """

    def __cinit__(self, Vfs vfs not None, DeferredReads deferred not None, *,
                  bint zero_message_open=False, Permits permits=None):
        self.vfs = vfs
        self.permits = permits
        self.deferred = deferred
        self.zero_message_open = zero_message_open

    cdef void serve(self, const ReplyPort *port, Room *room, const uint8_t *request,
                    size_t size) noexcept nogil:
        cdef Call call
        cdef size_t extensions
        cdef int rc
        if size < sizeof(InHeader):
            return              # no number to answer to
        call.port = port
        call.room = room
        memcpy(&call.header, request, sizeof(InHeader))
        note_request(room, call.header.unique, call.header.node_id, call.header.opcode)
        call.arg = request + sizeof(InHeader)
        call.arg_len = size - sizeof(InHeader)
        extensions = <size_t>call.header.total_extlen * 8
        if call.header.len != size or extensions > call.arg_len:
            rc = -EINVAL
        else:
            call.arg_len -= extensions
            rc = self.dispatch(&call)
        if rc != ANSWERED:
            reply_error(port, call.header.unique, -ENOSYS if rc == OP_UNKNOWN else rc)
        note_request(room, 0, 0, 0)

    cdef int dispatch(self, Call *call) noexcept nogil:
        """ANSWERED, or the code of an answer without data."""
        cdef uint32_t opcode = call.header.opcode
        if opcode == FUSE_READ:
            return self.read(call)
        elif opcode == FUSE_LOOKUP:
            return self.lookup(call)
        elif opcode == FUSE_GETATTR:
            return self.getattr(call)
        elif opcode == FUSE_READDIRPLUS:
            return self.readdir(call, True)
        elif opcode == FUSE_READDIR:
            return self.readdir(call, False)
        elif opcode == FUSE_FORGET or opcode == FUSE_BATCH_FORGET:
            self.forget(call)
            return ANSWERED
        elif opcode == FUSE_OPEN:
            return self.open(call, False)
        elif opcode == FUSE_OPENDIR:
            return self.open(call, True)
        elif opcode == FUSE_RELEASE:
            return self.release(call, False)
        elif opcode == FUSE_RELEASEDIR:
            return self.release(call, True)
        elif opcode == FUSE_READLINK:
            return self.readlink(call)
        elif opcode == FUSE_GETXATTR:
            return self.xattr(call, False)
        elif opcode == FUSE_LISTXATTR:
            return self.xattr(call, True)
        return self.serve_rare(call)

    cdef int serve_rare(self, Call *call) noexcept nogil:
        """As `dispatch`, for what readers of an image do not ask for."""
        cdef uint32_t opcode = call.header.opcode
        if is_change(opcode):
            return self.change(call)
        elif opcode == FUSE_STATFS:
            return self.statfs(call)
        elif opcode == FUSE_INIT:
            return self.init(call)
        elif opcode == FUSE_INTERRUPT or opcode == FUSE_NOTIFY_REPLY:
            return ANSWERED
        elif opcode == FUSE_DESTROY:
            return 0
        elif opcode == FUSE_IOCTL:
            return -ENOTTY
        return -ENOSYS      # POLL, locks, STATX, ...: the kernel asks once, and then does without

    cdef void forget(self, Call *call) noexcept nogil:
        """Tell the file systems what the kernel has dropped; one request counts once."""
        cdef ForgetIn asked
        cdef ForgetOne one
        cdef const uint8_t *row = call.arg + BATCH_FORGET_HEAD
        cdef size_t room = call.arg_len
        if call.header.opcode == FUSE_FORGET:
            asked.count = 0
            if room >= sizeof(ForgetIn):
                memcpy(&asked, call.arg, sizeof(ForgetIn))
            self.vfs.forget(call.header.node_id, asked.count, FOP_FORGET)
            return
        while room >= BATCH_FORGET_HEAD + sizeof(ForgetOne):
            memcpy(&one, row, sizeof(ForgetOne))
            self.vfs.forget(one.node_id, one.count,
                            FOP_BATCH_FORGET if room == call.arg_len else FOPS)
            row += sizeof(ForgetOne)
            room -= sizeof(ForgetOne)

    cdef int change(self, Call *call) noexcept nogil:
        """A change may wait for a disk: another worker, if there is one, takes requests then."""
        if self.permits is not None and self.permits.spare > 0 and call.room.has_permit:
            self.permits.give()
            call.room.has_permit = False
        return serve_change(self.vfs, call, not self.zero_message_open)

    cdef int init(self, Call *call) noexcept nogil:
        """Agree with the kernel on version and features."""
        cdef InitIn asked
        cdef InitOut out
        cdef uint64_t offered, wanted
        if call.arg_len < INIT_IN_BEFORE_36:
            return -EINVAL
        memset(&asked, 0, sizeof(InitIn))
        memcpy(&asked, call.arg, min(call.arg_len, sizeof(InitIn)))
        memset(&out, 0, sizeof(InitOut))
        out.major = WIRE_MAJOR
        out.minor = min(asked.minor, <uint32_t>WIRE_MINOR)
        if asked.major < WIRE_MAJOR:
            return -EPROTO
        if asked.major > WIRE_MAJOR:        # it asks again with our version
            out.minor = WIRE_MINOR
            reply_data(call.port, call.header.unique, &out, INIT_OUT_BEFORE_5)
            return ANSWERED
        offered = asked.flags
        if offered & INIT_EXT:
            offered |= <uint64_t>asked.flags2 << 32
        wanted = ALWAYS_WANTED
        if self.zero_message_open:
            wanted |= INIT_NO_OPEN_SUPPORT | INIT_NO_OPENDIR_SUPPORT
        else:       # files may change behind the mount: what is cached goes with the old mtime
            wanted |= INIT_AUTO_INVAL_DATA
        wanted &= offered
        out.max_readahead = asked.max_readahead
        out.flags = <uint32_t>wanted
        out.flags2 = <uint32_t>(wanted >> 32)
        out.max_background = MAX_BACKGROUND
        out.congestion_threshold = CONGESTION
        out.max_write = MAX_WRITE
        out.time_gran = 1
        out.max_pages = MAX_PAGES
        self.kernel_minor = asked.minor
        self.offered = offered
        self.accepted = wanted
        reply_data(call.port, call.header.unique, &out,
                   INIT_OUT_BEFORE_5 if asked.minor < 5 else
                   INIT_OUT_BEFORE_23 if asked.minor < 23 else sizeof(InitOut))
        flag_store(&self.negotiated, 1)
        return ANSWERED

    cdef int lookup(self, Call *call) noexcept nogil:
        cdef LookupOp op
        cdef EntryOut out
        cdef int rc
        cdef const uint8_t *end = <const uint8_t *>memchr(call.arg, 0, call.arg_len)
        if end == NULL:
            return -EINVAL
        op.node_id = call.header.node_id
        op.name = <const char *>call.arg
        op.name_len = end - call.arg
        rc = self.vfs.lookup(&op)
        if rc != OP_DONE:
            return rc
        if op.attr.ino == 0:
            memset(&out, 0, sizeof(EntryOut))
            out.entry_valid = op.entry_valid
        else:
            fill_entry(&out, op.child_id, &op.attr, op.entry_valid, op.attr_valid)
        if reply_data(call.port, call.header.unique, &out, sizeof(EntryOut)) < 0 and (
                op.attr.ino != 0):
            self.vfs.forget(op.child_id, 1, FOPS)   # the kernel has not heard of it
        return ANSWERED

    cdef int getattr(self, Call *call) noexcept nogil:
        cdef AttrOp op
        cdef AttrOut out
        cdef int rc
        if call.arg_len < sizeof(GetattrIn):
            return -EINVAL
        op.node_id = call.header.node_id
        rc = self.vfs.getattr(&op)
        if rc != OP_DONE:
            return rc
        out.attr_valid = op.attr_valid
        out.attr_valid_nsec = out.padding = 0
        fill_attr(&out.attr, &op.attr)
        reply_data(call.port, call.header.unique, &out, sizeof(AttrOut))
        return ANSWERED

    cdef int readlink(self, Call *call) noexcept nogil:
        cdef LinkOp op
        cdef int rc
        op.node_id = call.header.node_id
        op.buf = <char *>call.room.buf
        op.room = BLOCK_SIZE
        op.length = 0
        rc = self.vfs.readlink(&op)
        if rc != OP_DONE:
            return rc
        reply_data(call.port, call.header.unique, op.buf, op.length)
        return ANSWERED

    cdef int open(self, Call *call, bint directory) noexcept nogil:
        cdef OpenIn asked
        cdef OpenOp op
        cdef OpenOut out
        cdef int rc
        if call.arg_len < sizeof(OpenIn):
            return -EINVAL
        memcpy(&asked, call.arg, sizeof(OpenIn))
        memset(&op, 0, sizeof(OpenOp))
        op.node_id = call.header.node_id
        op.flags = asked.flags
        op.directory = directory
        rc = self.vfs.open(&op)
        if rc != OP_DONE:
            return rc
        if op.stateless and self.zero_message_open:
            return -ENOSYS      # never asked again; the kernel then keeps what it has cached
        fill_open(&out, &op)
        if reply_data(call.port, call.header.unique, &out, sizeof(OpenOut)) < 0:
            self.vfs.release(&op)   # nobody will close it
        return ANSWERED

    cdef int release(self, Call *call, bint directory) noexcept nogil:
        cdef ReleaseIn asked
        cdef OpenOp op
        if call.arg_len < sizeof(ReleaseIn):
            return -EINVAL
        memcpy(&asked, call.arg, sizeof(ReleaseIn))
        memset(&op, 0, sizeof(OpenOp))
        op.node_id = call.header.node_id
        op.handle = asked.handle
        op.flags = asked.flags
        op.directory = directory
        return self.vfs.release(&op)

    cdef int read(self, Call *call) noexcept nogil:
        """Answer from where the bytes are, or hand the read over: a worker never waits for data."""
        cdef ReadIn asked
        cdef ReadOp op
        cdef Mount *mount = NULL
        cdef int rc
        if call.arg_len < sizeof(ReadIn):
            return -EINVAL
        memcpy(&asked, call.arg, sizeof(ReadIn))
        if asked.size > REPLY_BYTES:
            return -E2BIG
        memset(&op, 0, sizeof(ReadOp))
        op.node_id = call.header.node_id
        op.handle = asked.handle
        op.offset = asked.offset
        op.size = asked.size
        op.target.iov = call.room.iov + 1
        op.target.iov_room = SPAN_ROOM
        op.target.buf = call.room.buf
        op.target.buf_room = REPLY_BYTES
        if flag_load(&self.copying) > 0:
            flag_add(&self.copying, -1)
            op.target.copy_only = True
        rc = self.vfs.read(&op, &mount)
        if rc == READ_DONE:
            if (op.target.is_unseen and self.permits is not None and self.permits.spare > 0
                    and waits_for_disk(op.target.iov, op.target.iov_count, call.room.buf,
                                       REPLY_BYTES)):
                self.permits.give()
                call.room.has_permit = False
            self.vfs.count_read(mount, &op, 0)
            if reply_gathered(call.port, call.header.unique, call.room.iov, op.target.iov_count,
                              op.target.length) == -EFAULT:
                flag_store(&self.copying, COPIED_READS)
            self.vfs.leave(mount)
            return ANSWERED
        if rc == READ_MISSING or rc == READ_CLAIMED:
            rc = self.deferred.defer(&op, rc, mount, call.port, call.header.unique)
            if rc == 0:
                return ANSWERED     # the mount is left when the read has ended
        if rc < 0:
            self.vfs.count_read(mount, &op, rc)
        self.vfs.leave(mount)
        return rc

    cdef int readdir(self, Call *call, bint plus) noexcept nogil:
        cdef ReadIn asked
        cdef DirOp op
        cdef Listing listing
        cdef int rc
        if call.arg_len < sizeof(ReadIn):
            return -EINVAL
        memcpy(&asked, call.arg, sizeof(ReadIn))
        listing.buf = call.room.buf
        listing.room = min(<size_t>asked.size, <size_t>REPLY_BYTES)
        listing.used = 0
        memset(&op, 0, sizeof(DirOp))
        op.node_id = call.header.node_id
        op.handle = asked.handle
        op.offset = asked.offset
        op.plus = plus
        op.emit = emit_direntplus if plus else emit_dirent
        op.owner = &listing
        rc = self.vfs.readdir(&op)
        if rc != OP_DONE and listing.used == 0:
            return rc       # after some entries: the next call meets the error again
        reply_data(call.port, call.header.unique, listing.buf, listing.used)
        return ANSWERED

    cdef int xattr(self, Call *call, bint listing) noexcept nogil:
        cdef GetxattrIn asked
        cdef GetxattrOut out
        cdef XattrOp op
        cdef const uint8_t *end
        cdef int rc
        if call.arg_len < sizeof(GetxattrIn):
            return -EINVAL
        memcpy(&asked, call.arg, sizeof(GetxattrIn))
        memset(&op, 0, sizeof(XattrOp))
        op.node_id = call.header.node_id
        if not listing:
            op.name = <const char *>call.arg + sizeof(GetxattrIn)
            end = <const uint8_t *>memchr(op.name, 0, call.arg_len - sizeof(GetxattrIn))
            if end == NULL:
                return -EINVAL
            op.name_len = <const char *>end - op.name
        op.buf = <char *>call.room.buf
        op.room = min(<size_t>asked.size, <size_t>REPLY_BYTES)
        rc = self.vfs.xattr(&op)
        if rc == -ENOSYS and not self.zero_message_open:
            return -EOPNOTSUPP      # ENOSYS would end attributes for every other mount too
        if rc != OP_DONE:
            return rc
        if op.room > 0:
            reply_data(call.port, call.header.unique, op.buf, op.length)
        else:
            out.size = <uint32_t>op.length
            out.padding = 0
            reply_data(call.port, call.header.unique, &out, sizeof(GetxattrOut))
        return ANSWERED

    cdef int statfs(self, Call *call) noexcept nogil:
        cdef StatfsOp op
        cdef StatfsOut out
        cdef int rc
        memset(&op, 0, sizeof(StatfsOp))
        op.node_id = call.header.node_id
        rc = self.vfs.statfs(&op)
        if rc != OP_DONE:
            return rc
        memset(&out, 0, sizeof(StatfsOut))
        out.blocks = op.blocks
        out.free_blocks = op.free_blocks
        out.available_blocks = op.available_blocks
        out.files = op.files
        out.free_files = op.free_files
        out.block_size = op.block_size
        out.fragment_size = op.fragment_size
        out.name_max = op.name_max
        reply_data(call.port, call.header.unique, &out, sizeof(StatfsOut))
        return ANSWERED

    def serve_bytes(self, const uint8_t[::1] request, int fd):
        """Serve one request, its answer written to *fd*.

        For carriers written in Python, and for tests.
        """
        cdef ReplyPort port
        cdef Room *room = new_room()
        if room == NULL:
            raise MemoryError
        port.fd = fd
        port.send = send_to_device
        with nogil:
            self.serve(&port, room, &request[0] if request.shape[0] > 0 else NULL,
                       request.shape[0])
            free_room(room)

    def adopt(self, uint64_t offered, uint64_t accepted):
        """Serve a connection whose INIT another process has answered; before the first request.

        The kernel does not ask again: what was agreed on stands, and its minor is not known (0).
        """
        self.kernel_minor = 0
        self.offered = offered
        self.accepted = accepted
        self.zero_message_open = accepted & INIT_NO_OPEN_SUPPORT != 0
        flag_store(&self.negotiated, 1)

    @property
    def negotiation(self):
        """(minor of the kernel, flags it offered, flags accepted), None before INIT."""
        if flag_load(&self.negotiated) == 0:
            return None
        return self.kernel_minor, self.offered, self.accepted
