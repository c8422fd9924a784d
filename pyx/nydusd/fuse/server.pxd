# Request bytes in, reply out, whoever carries them.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.fs.vfs cimport Vfs
from nydusd.fuse.call cimport Call
from nydusd.fuse.deferred cimport DeferredReads
from nydusd.fuse.permits cimport Permits
from nydusd.fuse.reply cimport ReplyPort, Room

cdef class Server:
    cdef Vfs vfs
    cdef DeferredReads deferred
    cdef Permits permits            # None: every worker may always take requests
    cdef bint zero_message_open     # set once before start
    cdef int negotiated             # atomic; 1 = INIT has been answered
    cdef int copying                # atomic; reads to answer by copies, after one met EFAULT
    cdef uint32_t kernel_minor      # these three: written before `negotiated`
    cdef uint64_t offered
    cdef uint64_t accepted

    # Answers the request, or sees to it that it will be.
    cdef void serve(self, const ReplyPort *port, Room *room, const uint8_t *request,
                    size_t size) noexcept nogil

    cdef int dispatch(self, Call *call) noexcept nogil
    cdef int serve_rare(self, Call *call) noexcept nogil
    cdef void forget(self, Call *call) noexcept nogil
    cdef int change(self, Call *call) noexcept nogil
    cdef int init(self, Call *call) noexcept nogil
    cdef int lookup(self, Call *call) noexcept nogil
    cdef int getattr(self, Call *call) noexcept nogil
    cdef int readlink(self, Call *call) noexcept nogil
    cdef int open(self, Call *call, bint directory) noexcept nogil
    cdef int release(self, Call *call, bint directory) noexcept nogil
    cdef int read(self, Call *call) noexcept nogil
    cdef int readdir(self, Call *call, bint plus) noexcept nogil
    cdef int xattr(self, Call *call, bint listing) noexcept nogil
    cdef int statfs(self, Call *call) noexcept nogil
