"""One stored unit that several chunks share: its stored bytes to its plain bytes.

What a unit is: rafs/blobmeta.pxd. Each kind has its branch in `decode_unit`, which knows neither
the chunks nor the cache file; the blob's CI array (`blob.meta`) is there whenever a unit is.
Ordinary chunks do not come here: `cache.decode` decodes many of them in one call. Any thread.
"""

from libc.errno cimport ENOMEM

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.rafs.blobmeta cimport CHUNK_ZRAN
from nydusd.rafs.zran_table cimport ZranTable


cdef extern from "<errno.h>" nogil:
    int ENOTSUP


cdef int decode_unit(CachedBlob blob, const StoredUnit *unit) except? -1:
    cdef ZranTable zran
    cdef int rc
    if unit.flags & CHUNK_ZRAN and blob.meta.zran is not None:
        zran = blob.meta.zran
        with nogil:
            rc = zran.inflate(unit.context_index, unit.stored, unit.stored_size,
                              unit.plain, unit.plain_size)
        if rc == -ENOMEM:
            raise MemoryError
        return rc
    return -ENOTSUP
