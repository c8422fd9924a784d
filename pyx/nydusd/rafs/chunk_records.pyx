"""Chunk records of an image that exists: for builds that refer to its chunks, for what they tell.

Digests, and the places of stored bytes, by a table that every v6 bootstrap has beside its files.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

from nydusd.rafs.bootstrap cimport Bootstrap
from nydusd.rafs.ondisk_v5 cimport ChunkRecord
from nydusd.rafs.ondisk_v6 cimport V6_EXT_SUPERBLOCK_OFFSET, ExtSuperblockV6

from nydusd.base.errors import BootstrapError

RECORD_SIZE = sizeof(ChunkRecord)


def chunk_table(Bootstrap bootstrap):
    """The records of a v6 image's chunk table, 80 bytes each, sorted by digest.

    `BootstrapError` where the file ends before its table.
    """
    cdef const ExtSuperblockV6 *ext = <const ExtSuperblockV6 *>bootstrap.file.at(
        V6_EXT_SUPERBLOCK_OFFSET, sizeof(ExtSuperblockV6))
    cdef const char *table = NULL
    if ext != NULL and bootstrap.version == 6:
        table = <const char *>bootstrap.file.at(ext.chunk_table_offset, ext.chunk_table_size)
    if table == NULL:
        raise BootstrapError("the bootstrap has no chunk table: the file is cut, get it again")
    data = table[:ext.chunk_table_size]
    return [data[i:i + RECORD_SIZE] for i in range(0, len(data), RECORD_SIZE)]


cdef const ChunkRecord *table_of(Bootstrap bootstrap, uint64_t *count) except? NULL:
    """The chunk table of a v6 image, and its records; none where there is none."""
    cdef const ExtSuperblockV6 *ext = <const ExtSuperblockV6 *>bootstrap.file.at(
        V6_EXT_SUPERBLOCK_OFFSET, sizeof(ExtSuperblockV6))
    cdef const ChunkRecord *records = NULL
    cdef uint64_t n = 0
    if ext != NULL and bootstrap.version == 6:
        n = ext.chunk_table_size // sizeof(ChunkRecord)
        records = <const ChunkRecord *>bootstrap.file.at(
            ext.chunk_table_offset, n * sizeof(ChunkRecord))
    count[0] = n if records != NULL else 0
    return records


def places_of_blob(Bootstrap bootstrap, uint32_t blob_index, uint32_t count):
    """Where the stored bytes of the *count* chunks of a blob lie, by a v6 image's chunk table.

    Offset and size as 8 bytes each, in chunk order; zeros where the table does not tell. Of no more
    chunks than the table has records: a *count* that lies is not believed. b"" for no table. The
    blob's own CI array is what counts.
    """
    cdef uint64_t n = 0
    cdef const ChunkRecord *records = table_of(bootstrap, &n)
    cdef uint64_t i
    cdef uint64_t *target
    cdef bytes places
    if n == 0:
        return b""
    count = <uint32_t>min(<uint64_t>count, n)
    places = bytes(<size_t>count * 2 * sizeof(uint64_t))
    target = <uint64_t *>PyBytes_AS_STRING(places)      # nobody else has it yet
    with nogil:
        for i in range(n):
            if records[i].blob_index == blob_index and records[i].index < count:
                target[2 * <size_t>records[i].index] = records[i].compressed_offset
                target[2 * <size_t>records[i].index + 1] = records[i].compressed_size
    return places


def digests_of_blob(Bootstrap bootstrap, uint32_t blob_index, uint32_t count):
    """The digests of the *count* chunks of a blob, by a v6 image's chunk table; b"" for no table.

    32 bytes each in chunk order, zeros where the table does not tell.
    """
    cdef uint64_t n = 0
    cdef const ChunkRecord *records = table_of(bootstrap, &n)
    cdef uint64_t i
    cdef bytes digests
    cdef char *target
    if n == 0:
        return b""
    digests = bytes(<size_t>count * sizeof(records.digest))
    target = PyBytes_AS_STRING(digests)     # nobody else has it yet
    with nogil:
        for i in range(n):
            if records[i].blob_index == blob_index and records[i].index < count:
                memcpy(target + <size_t>records[i].index * sizeof(records.digest),
                       records[i].digest, sizeof(records.digest))
    return digests if any(digests) else b""


def place_of(const unsigned char[::1] record):
    """Blob index and chunk index of a *record*."""
    cdef const ChunkRecord *found
    if record.shape[0] != sizeof(ChunkRecord):
        raise ValueError(f"a chunk record of {record.shape[0]} bytes")
    found = <const ChunkRecord *>&record[0]
    return found.blob_index, found.index


def record_of_span(span):
    """The record of the chunk that a v5 image's *span* (`records.Span`) is a part of."""
    cdef ChunkRecord record
    cdef bytes digest = span.digest
    if digest is None or len(digest) != sizeof(record.digest):
        raise ValueError("the span tells no digest")
    memcpy(record.digest, <const char *>digest, sizeof(record.digest))
    record.blob_index = span.blob_index
    record.flags = span.chunk_flags
    record.compressed_size = span.compressed_size
    record.uncompressed_size = span.uncompressed_size
    record.compressed_offset = span.compressed_offset
    record.uncompressed_offset = span.uncompressed_offset
    record.file_offset = 0
    record.index = span.chunk_index
    record.crc32 = span.crc32
    return (<const char *>&record)[:sizeof(record)]


def record_in_blob(const unsigned char[::1] record, unsigned int blob_index):
    """*record* with another blob index: the same chunk in another image's blob table."""
    cdef ChunkRecord moved
    if record.shape[0] != sizeof(ChunkRecord):
        raise ValueError(f"a chunk record of {record.shape[0]} bytes")
    moved = (<const ChunkRecord *>&record[0])[0]
    moved.blob_index = blob_index
    return (<const char *>&moved)[:sizeof(moved)]


def digest_and_size(const unsigned char[::1] record):
    """Digest and plain size of a *record*'s chunk."""
    cdef const ChunkRecord *found
    if record.shape[0] != sizeof(ChunkRecord):
        raise ValueError(f"a chunk record of {record.shape[0]} bytes")
    found = <const ChunkRecord *>&record[0]
    return (<const char *>found.digest)[:sizeof(found.digest)], found.uncompressed_size
