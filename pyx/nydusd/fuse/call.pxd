# One request while it is served, and what several answers are made of.
from libc.stdint cimport uint8_t, uint64_t

from nydusd.fs.op cimport Attributes, OpenOp
from nydusd.fuse.reply cimport ReplyPort, Room
from nydusd.fuse.wire cimport Attr, EntryOut, InHeader, OpenOut

cdef enum:
    ANSWERED = 3                # of whoever serves a call: nothing is left to send

# One request while it is served; all pointers until the reply.
cdef struct Call:
    const ReplyPort *port
    Room *room
    InHeader header
    const uint8_t *arg
    size_t arg_len

cdef void fill_attr(Attr *out, const Attributes *attr) noexcept nogil
cdef void fill_entry(EntryOut *out, uint64_t node_id, const Attributes *attr,
                     uint64_t entry_valid, uint64_t attr_valid) noexcept nogil
cdef void fill_open(OpenOut *out, const OpenOp *op) noexcept nogil
