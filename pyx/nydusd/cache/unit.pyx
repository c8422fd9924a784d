"""One stored unit: its stored bytes to its plain ones, where that takes more than a decompressor.

What a unit is: rafs/blobmeta.pxd. Each kind that chunks share has its branch in `decode_unit`,
which knows neither the chunks nor the cache file; the blob's CI array (`blob.meta`) is there
whenever such a unit is. Chunks of their own come here only when they are encrypted: `cache.decode`
has the others decoded in one call. Any thread.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport uint8_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.codec.compression cimport COMPRESSOR_NONE, Piece, decompress_pieces
from nydusd.rafs.blobmeta cimport CHUNK_ZRAN
from nydusd.rafs.bootstrap cimport CHUNK_BATCH, CHUNK_ENCRYPTED
from nydusd.rafs.zran_table cimport ZranTable

from nydusd.codec.cipher import unpadded


cdef extern from "<Python.h>":
    int PyBUF_READ

cdef enum:
    BY_SIZE = -1        # compressed when it is stored in another size than its own


cdef int decompress(CachedBlob blob, const uint8_t *stored, size_t stored_size, uint8_t *plain,
                    size_t plain_size, int compressed) except? -1:
    """One piece that is not encrypted (any more)."""
    cdef Piece piece
    if compressed == BY_SIZE:
        compressed = stored_size != plain_size
    piece.stored = stored
    piece.stored_size = stored_size
    piece.plain = plain
    piece.plain_size = plain_size
    piece.result = 0
    decompress_pieces(blob.info.compressor if compressed else COMPRESSOR_NONE, &piece, 1)
    return piece.result


cdef int decrypt(CachedBlob blob, const uint8_t *stored, size_t stored_size, uint8_t *plain,
                 size_t plain_size, int compressed) except? -1:
    cdef bytes opened
    cdef bytes short
    if blob.cipher is None:
        return -EIO
    try:
        opened = blob.cipher.decrypt(
            PyMemoryView_FromMemory(<char *>stored, stored_size, PyBUF_READ))
    except ValueError:
        return -EIO         # shorter than anything that the cipher makes
    # What looks padded may be content of 18 bytes: only one of the two makes the size that is due.
    short = unpadded(opened)
    if short is not None and decompress(
            blob, <const uint8_t *>PyBytes_AS_STRING(short), len(short), plain, plain_size,
            compressed) == 0:
        return 0
    return decompress(blob, <const uint8_t *>PyBytes_AS_STRING(opened), len(opened), plain,
                      plain_size, compressed)


cdef int decode_encrypted(CachedBlob blob, const uint8_t *stored, size_t stored_size,
                          uint8_t *plain, size_t plain_size, bint compressed) except? -1:
    return decrypt(blob, stored, stored_size, plain, plain_size, compressed)


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
    if unit.flags & CHUNK_BATCH:
        # Its sizes are compared after decryption: padding may make the stored one the larger.
        if unit.flags & CHUNK_ENCRYPTED:
            return decrypt(blob, unit.stored, unit.stored_size, unit.plain, unit.plain_size,
                           BY_SIZE)
        return decompress(blob, unit.stored, unit.stored_size, unit.plain, unit.plain_size,
                          BY_SIZE)
    return -EIO         # no table of such units in this blob
