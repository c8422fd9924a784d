# A change that the kernel asks for, as a call of a file system in Python; with the GIL.
from nydusd.fs.op cimport ChangeOp

# 0; an exception is the file system's, or comes of an answer of the wrong kind
cdef int call_change(object filesystem, ChangeOp *op) except -1
