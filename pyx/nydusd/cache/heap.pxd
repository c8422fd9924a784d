# The memory of fetches: large buffers to use again, and when they go back to the system.
# All of it under the GIL.
from libc.stdint cimport uint64_t

# A buffer of *size* bytes, whatever is in them
cdef bytearray take_buffer(uint64_t size)
# Nobody uses or keeps *buffer* any more
cdef int give_buffer(bytearray buffer) except -1
# A fetch has ended; *size*: bytes that it had of a backend
cdef void note_end(uint64_t size) noexcept
