# What a file system in Python answers, turned into what the compiled side knows; with the GIL.
from nydusd.fs.op cimport OpenOp
from nydusd.rafs.bootstrap cimport Attributes

# `-errno` for an exception
cdef int refusal(BaseException exc) noexcept
# a `Stat`, an `Opened` into its struct
cdef int fill(Attributes *attr, object stat) except -1
cdef int fill_opened(OpenOp *op, object opened) except -1
# Copy *value* out; only its length when *room* is 0; `-ERANGE` when it is longer.
cdef int put(bytes value, char *buf, size_t room, size_t *length) except? -1
