"""CRC-64 of bytes: Jones' polynomial, reflected, start 0, no final inversion.

The sum at the end of a saved state (spec of the run time: state encoding). Eight bytes a step, as
a state of many mounts has a megabyte and is made again after every mount.
"""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    STEP = 8

cdef uint64_t POLYNOMIAL = 0x95ac9329ac4bc9b5
# tables[n][b]: what byte b does to the sum when n zero bytes follow it
cdef uint64_t[STEP][256] tables


cdef void fill_tables() noexcept nogil:
    cdef int byte, step
    cdef uint64_t value
    for byte in range(256):
        value = <uint64_t>byte
        for _ in range(8):
            value = (value >> 1) ^ (POLYNOMIAL if value & 1 else 0)
        tables[0][byte] = value
    for step in range(1, STEP):
        for byte in range(256):
            value = tables[step - 1][byte]
            tables[step][byte] = tables[0][value & 0xff] ^ (value >> 8)


cdef uint64_t sum_of(const uint8_t *data, size_t size) noexcept nogil:
    cdef uint64_t value = 0
    while size >= STEP:
        value ^= (
            <uint64_t>data[0] | <uint64_t>data[1] << 8 | <uint64_t>data[2] << 16 |
            <uint64_t>data[3] << 24 | <uint64_t>data[4] << 32 | <uint64_t>data[5] << 40 |
            <uint64_t>data[6] << 48 | <uint64_t>data[7] << 56)
        value = (
            tables[7][value & 0xff] ^ tables[6][value >> 8 & 0xff] ^
            tables[5][value >> 16 & 0xff] ^ tables[4][value >> 24 & 0xff] ^
            tables[3][value >> 32 & 0xff] ^ tables[2][value >> 40 & 0xff] ^
            tables[1][value >> 48 & 0xff] ^ tables[0][value >> 56])
        data += STEP
        size -= STEP
    while size > 0:
        value = tables[0][(value ^ data[0]) & 0xff] ^ (value >> 8)
        data += 1
        size -= 1
    return value


def crc64(const uint8_t[::1] data not None):
    """The checksum of *data*."""
    cdef size_t size = data.shape[0]
    cdef const uint8_t *start = &data[0] if size > 0 else NULL
    cdef uint64_t value
    with nogil:
        value = sum_of(start, size)
    return value


fill_tables()
