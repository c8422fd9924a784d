# One mapped file and bounds-checked loads from it.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef class Mapping:
    cdef uint8_t *base              # owned: unmapped in close() and __dealloc__; NULL when empty
    cdef readonly uint64_t size     # bytes
    cdef int guard                  # index in the table of the SIGBUS guard, -1 = none

    # *n* readable bytes at *off*, or NULL; borrowed until the mapping is closed
    cdef const uint8_t *at(self, uint64_t off, uint64_t n) noexcept nogil
    # 0, -EIO past the end
    cdef int load_u16(self, uint64_t off, uint16_t *out) noexcept nogil
    cdef int load_u32(self, uint64_t off, uint32_t *out) noexcept nogil
    cdef int load_u64(self, uint64_t off, uint64_t *out) noexcept nogil
    # *n* bytes at *off* are not needed soon: their pages are no longer resident memory
    cdef void rest(self, uint64_t off, uint64_t n) noexcept nogil
    cdef void unmap(self) noexcept nogil
    # somebody shortened the file under the mapping: what was read may be zeros
    cdef bint is_damaged(self) noexcept nogil
