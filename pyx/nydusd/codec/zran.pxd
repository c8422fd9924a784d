# Random access into gzip streams: plain bytes from a point of entry on.
from libc.stdint cimport uint8_t, uint32_t

# A point of entry, and the stored bytes from it on (rafs-format: ZRAN).
cdef struct GzipEntry:
    const uint8_t *stored       # borrowed
    size_t stored_size
    const uint8_t *dictionary   # borrowed: the plain bytes before the entry, at most 32 KiB
    uint32_t dictionary_size
    uint8_t lead_byte           # the byte before `stored`, whose
    uint8_t lead_bits           # high bits, 0..7 of them, belong to the stream

# Fill *plain*: 0, -EIO fewer bytes come out or the stream is broken, -ENOMEM.
cdef int inflate_from(const GzipEntry *entry, uint8_t *plain, size_t plain_size) noexcept nogil
