# Where the answers of a connection go.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from nydusd.fs.op cimport SPAN_ROOM, iovec

cdef enum:
    REPLY_BYTES = (1 << 20) + 4096      # of data at most, as the mount's max_read has it

# One thread's room for the answer it makes.
cdef struct Room:
    iovec iov[SPAN_ROOM + 1]    # [0] is for the header
    uint8_t *buf                # owned; REPLY_BYTES, memory only where it was used
    bint has_permit             # its thread may take requests (fuse/permits)
    # The request that is being answered, for whoever wants to know what hangs; atomic.
    uint64_t unique             # 0 = none
    uint64_t node_id
    uint64_t opcode
    int64_t since               # seconds since the epoch

cdef Room *new_room() noexcept nogil        # NULL = no memory
cdef void free_room(Room *room) noexcept nogil
# Let go of the memory of a large answer, which used the first *used* bytes: rooms are many
cdef void give_back(Room *room, size_t used) noexcept nogil
# *unique* 0: the room's thread answers nothing any more
cdef void note_request(Room *room, uint64_t unique, uint64_t node_id,
                       uint32_t opcode) noexcept nogil
# False when the room's thread answers nothing
cdef bint noted_request(Room *room, uint64_t *unique, uint64_t *node_id, uint64_t *opcode,
                        int64_t *since) noexcept nogil

cdef struct ReplyPort:
    int fd                  # borrowed from the carrier
    # 0 or -errno; any thread, no GIL
    int (*send)(const ReplyPort *, const iovec *, int) noexcept nogil

cdef int send_to_device(const ReplyPort *port, const iovec *iov, int count) noexcept nogil

# All: 0 or -errno of the sending.
cdef int reply_error(const ReplyPort *port, uint64_t unique, int32_t code) noexcept nogil
cdef int reply_data(const ReplyPort *port, uint64_t unique, const void *data,
                    size_t size) noexcept nogil
# *iov[0]* is room for the header, the data is in iov[1..count]
cdef int reply_gathered(const ReplyPort *port, uint64_t unique, iovec *iov, uint32_t count,
                        size_t length) noexcept nogil
cdef int notify(const ReplyPort *port, int code, const iovec *parts, int count) noexcept nogil
