# Names and file types, as both readers see them. Inline only: there is no module behind it.
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr, memcmp

cdef enum:
    NAME_MAX = 255          # bytes
    # S_IFMT bits >> 12
    KIND_SHIFT = 12
    KIND_FIFO = 1
    KIND_CHAR = 2
    KIND_DIRECTORY = 4
    KIND_BLOCK = 6
    KIND_REGULAR = 8
    KIND_SYMLINK = 10
    KIND_SOCKET = 12


cdef inline bint is_kind(uint32_t kind) noexcept nogil:
    """Whether *kind* is a type of file that there is."""
    return kind == KIND_REGULAR or kind == KIND_DIRECTORY or kind == KIND_SYMLINK \
        or kind == KIND_CHAR or kind == KIND_BLOCK or kind == KIND_FIFO or kind == KIND_SOCKET


cdef inline bint is_device(uint32_t kind) noexcept nogil:
    """Whether inodes of *kind* have a device number."""
    return kind == KIND_CHAR or kind == KIND_BLOCK


cdef inline int compare_names(const char *left, size_t left_len, const char *right,
                              size_t right_len) noexcept nogil:
    """Order of two names: by bytes, then by length."""
    cdef int order = memcmp(left, right, left_len if left_len < right_len else right_len)
    if order != 0:
        return order
    return (left_len > right_len) - (left_len < right_len)


cdef inline bint is_dots(const uint8_t *name, size_t size) noexcept nogil:
    """Whether *name* is `.` or `..`, which every directory has without an entry."""
    return 0 < size <= 2 and name[0] == c'.' and name[size - 1] == c'.'


cdef inline bint is_name(const uint8_t *name, size_t size) noexcept nogil:
    """Whether a directory may hold *name*: 1 to 255 bytes, no `/`, no NUL."""
    return 0 < size <= NAME_MAX and memchr(name, c'/', size) == NULL \
        and memchr(name, 0, size) == NULL
