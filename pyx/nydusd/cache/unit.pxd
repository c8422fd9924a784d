# One stored unit: its stored bytes to its plain bytes, where that takes more than one decompressor.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob

cdef struct StoredUnit:
    const uint8_t *stored       # borrowed
    size_t stored_size
    uint8_t *plain              # borrowed: room for plain_size bytes
    size_t plain_size
    uint64_t offset             # of `stored` in the blob file
    uint32_t flags              # CHUNK_* of its first chunk, the kind among them
    uint32_t context_index      # number of the batch or zran context

# Both: 0, -EIO the stored bytes do not decode to exactly plain_size bytes; raise for want of memory
# only. With the GIL, which the heavy part gives up.

# a unit that several chunks share
cdef int decode_unit(CachedBlob blob, const StoredUnit *unit) except? -1
# a chunk of its own, or the like, that is encrypted, and *compressed* before that or not
cdef int decode_encrypted(CachedBlob blob, const uint8_t *stored, size_t stored_size,
                          uint8_t *plain, size_t plain_size, bint compressed) except? -1
