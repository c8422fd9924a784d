# The contexts of a zran blob: points of entry into its gzip stream.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping

# One stretch of the stream, checked: all chunks of a context come out of it at once.
cdef struct ZranStretch:
    uint64_t in_offset          # of its first byte in the gzip file
    uint32_t in_size            # stored bytes; never 0
    uint32_t out_size           # plain bytes; never 0
    const uint8_t *dictionary   # borrowed from the table's mapping
    uint64_t dictionary_offset  # of these bytes in the mapping
    uint32_t dictionary_size
    uint8_t lead_byte           # the byte before in_offset, whose
    uint8_t lead_bits           # high bits, 0..7 of them, belong to the stretch

cdef class ZranTable:
    cdef Mapping file               # the plain CI array with all that follows it
    cdef uint64_t offset            # of the first context
    cdef uint64_t dictionaries      # offset of the dictionary area
    cdef uint64_t dictionaries_size
    cdef uint64_t compressed_end    # bytes of the gzip file
    cdef readonly uint32_t count

    # 0; -EINVAL no such context; -EIO it is broken. Any thread.
    cdef int stretch(self, uint32_t index, ZranStretch *out) noexcept nogil
    # fill *plain* from *stored*, which are context *index* whole: + -EIO the bytes do not inflate
    # to exactly *plain_size*, -ENOMEM
    cdef int inflate(self, uint32_t index, const uint8_t *stored, size_t stored_size,
                     uint8_t *plain, size_t plain_size) noexcept nogil
