# Where the bytes of a read go, and how it is answered when that is later.
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void *iov_base
        size_t iov_len

cdef enum:
    READ_DONE = 0           # iov and length are set
    READ_MISSING = 1        # something must be fetched: ask `fetch` from a thread that may wait
    READ_CLAIMED = 2        # all that is missing is being fetched: park on wait_on, then read again
    READ_AGAIN = 3          # of `fetch`: what was missing is there now, or somebody else has it
    READ_ANSWERED = 4       # of `fetch`: answer() has been called; the target is its owner's again

cdef struct ReadTarget:
    iovec *iov              # borrowed from the caller; segments point into buf, into cache mappings
    uint32_t iov_room       # or into fetched buffers (only until answer() returns)
    uint32_t iov_count
    uint8_t *buf            # borrowed from the caller: room for every byte of the read
    size_t buf_room
    size_t buf_used
    size_t length           # bytes gathered in iov
    bint copy_only          # segments may not point into mappings: the carrier met EFAULT there
    bint is_unseen          # some segment points at a mapping that was not looked at lately
    const uint64_t *wait_on     # READ_CLAIMED: counter of the chunk map; outlives the read
    uint64_t wait_seen          # READ_CLAIMED: its value when the claims were looked at
    # for `fetch`: deliver iov (result 0) or -errno; must not block for long; any thread, no GIL
    void (*answer)(ReadTarget *, int32_t result) noexcept nogil
    void *owner             # the caller's own
    bint impatient          # has waited long enough: fetch even what somebody else has claimed

# append to the target: 0, -EIO when there is no room (a carrier's mistake)
cdef int add_segment(ReadTarget *target, const void *data, size_t size) noexcept nogil
cdef int add_zeros(ReadTarget *target, size_t size) noexcept nogil
# *size* bytes of buf that the caller is about to fill, appended; NULL when there is no room
cdef uint8_t *add_room(ReadTarget *target, size_t size) noexcept nogil

# What a target held before something was appended.
cdef struct Mark:
    uint32_t iov_count
    size_t buf_used
    size_t length
    size_t last             # length of the last segment, which may have grown

cdef Mark mark(const ReadTarget *target) noexcept nogil
# take back whatever was appended since *start*
cdef void undo(ReadTarget *target, const Mark *start) noexcept nogil
