# Checksums of plain bytes.
from libc.stdint cimport uint8_t, uint32_t

# CRC-32C of *size* bytes; *seed* 0, or what an earlier call gave for the bytes before
cdef uint32_t crc32c(uint32_t seed, const uint8_t *data, size_t size) noexcept nogil
