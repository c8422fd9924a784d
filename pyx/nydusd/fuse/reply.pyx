"""Answers and notifications: a header, and data from where it lies, in one writev.

Knows no operation. The kernel forgets a request that was interrupted or whose connection ended, so
`-ENOENT` from sending is nobody's error. Any thread.
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from nydusd.fs.op cimport iovec
from nydusd.fuse.wire cimport OutHeader


cdef extern from *:
    """
    #include <time.h>
    static inline void room_store(uint64_t *p, uint64_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    static inline uint64_t room_load(uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline int64_t coarse_seconds(void)
        { struct timespec now; clock_gettime(CLOCK_REALTIME_COARSE, &now); return now.tv_sec; }
    """
    void room_store(uint64_t *, uint64_t) noexcept nogil
    uint64_t room_load(uint64_t *) noexcept nogil
    int64_t coarse_seconds() noexcept nogil

cdef extern from "<sys/uio.h>" nogil:
    ssize_t writev(int, const iovec *, int)

cdef extern from "<sys/mman.h>" nogil:
    void *mmap(void *, size_t, int, int, int, long)
    int munmap(void *, size_t)
    int madvise(void *, size_t, int)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MAP_PRIVATE, MAP_ANONYMOUS, MAP_NORESERVE, MADV_DONTNEED

cdef enum:
    NOTIFY_PARTS = 3
    # Short answers go out in one piece: the kernel looks the pages of each piece up by itself.
    JOINED_BYTES = 256
    HEADER_BYTES = 16       # sizeof(OutHeader)
    KEPT_BYTES = 1 << 16    # of a room that is not in use


cdef Room *new_room() noexcept nogil:
    cdef Room *room = <Room *>malloc(sizeof(Room))
    if room != NULL:
        room.has_permit = False
        room.unique = 0
        # From its own pages: copies to an odd address are several times slower, and the kernel then
        # looks up one page more for each answer. And malloc gives memory that was used before, all
        # of it resident: 60 MiB with 64 threads, most of which never put more than some KiB there.
        room.buf = <uint8_t *>mmap(NULL, REPLY_BYTES, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
        if <void *>room.buf == MAP_FAILED:
            free(room)
            return NULL
    return room


cdef void free_room(Room *room) noexcept nogil:
    if room != NULL:
        munmap(room.buf, REPLY_BYTES)
        free(room)


cdef void give_back(Room *room, size_t used) noexcept nogil:
    if used > KEPT_BYTES:
        madvise(room.buf + KEPT_BYTES, used - KEPT_BYTES, MADV_DONTNEED)


cdef void note_request(Room *room, uint64_t unique, uint64_t node_id,
                       uint32_t opcode) noexcept nogil:
    if unique != 0:
        room.node_id = node_id
        room.opcode = opcode
        room.since = coarse_seconds()
    room_store(&room.unique, unique)


cdef bint noted_request(Room *room, uint64_t *unique, uint64_t *node_id, uint64_t *opcode,
                        int64_t *since) noexcept nogil:
    unique[0] = room_load(&room.unique)
    node_id[0] = room.node_id
    opcode[0] = room.opcode
    since[0] = room.since
    # what was read in the midst of a change is of no request
    return unique[0] != 0 and room_load(&room.unique) == unique[0]


cdef int send_to_device(const ReplyPort *port, const iovec *iov, int count) noexcept nogil:
    """`ReplyPort.send` of /dev/fuse: the kernel takes a whole answer or none."""
    while writev(port.fd, iov, count) < 0:
        if errno != EINTR:
            return -errno
    return 0


cdef int reply_error(const ReplyPort *port, uint64_t unique, int32_t code) noexcept nogil:
    """Answer with *code*, 0 or `-errno`, and nothing else."""
    cdef OutHeader header
    cdef iovec iov
    header.len = sizeof(OutHeader)
    header.error = code
    header.unique = unique
    iov.iov_base = &header
    iov.iov_len = sizeof(OutHeader)
    return port.send(port, &iov, 1)


cdef int reply_data(const ReplyPort *port, uint64_t unique, const void *data,
                    size_t size) noexcept nogil:
    cdef uint8_t joined[HEADER_BYTES + JOINED_BYTES]
    cdef OutHeader header
    cdef iovec iov[2]
    if size > JOINED_BYTES:
        iov[1].iov_base = <void *>data
        iov[1].iov_len = size
        return reply_gathered(port, unique, iov, 1, size)
    header.len = <uint32_t>(sizeof(OutHeader) + size)
    header.error = 0
    header.unique = unique
    memcpy(joined, &header, HEADER_BYTES)
    memcpy(joined + HEADER_BYTES, data, size)
    iov[0].iov_base = joined
    iov[0].iov_len = header.len
    return port.send(port, iov, 1)


cdef int reply_gathered(const ReplyPort *port, uint64_t unique, iovec *iov, uint32_t count,
                        size_t length) noexcept nogil:
    cdef OutHeader header
    header.len = <uint32_t>(sizeof(OutHeader) + length)
    header.error = 0
    header.unique = unique
    iov[0].iov_base = &header
    iov[0].iov_len = sizeof(OutHeader)
    return port.send(port, iov, <int>count + 1)


cdef int notify(const ReplyPort *port, int code, const iovec *parts, int count) noexcept nogil:
    """Send a notification of *parts*, three at most."""
    cdef iovec iov[NOTIFY_PARTS + 1]
    cdef OutHeader header
    cdef int i
    header.len = sizeof(OutHeader)
    header.error = code
    header.unique = 0
    iov[0].iov_base = &header
    iov[0].iov_len = sizeof(OutHeader)
    for i in range(min(count, NOTIFY_PARTS)):
        iov[i + 1] = parts[i]
        header.len += <uint32_t>parts[i].iov_len
    return port.send(port, iov, min(count, NOTIFY_PARTS) + 1)
