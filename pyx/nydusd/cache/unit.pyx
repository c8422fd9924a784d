"""One stored unit that several chunks share: its stored bytes to its plain bytes.

What a unit is: rafs/blobmeta.pxd. Each kind has its branch in `decode_unit`, which knows neither
the chunks nor the cache file; the blob's CI array (`blob.meta`) is there whenever a unit is.
Ordinary chunks do not come here: `cache.decode` decodes many of them in one call. Any thread.
"""

from nydusd.cache.cached_blob cimport CachedBlob


cdef extern from "<errno.h>" nogil:
    int ENOTSUP


cdef int decode_unit(CachedBlob blob, const StoredUnit *unit) except? -1:
    return -ENOTSUP
