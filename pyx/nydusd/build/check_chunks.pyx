"""The chunks that a check has met: no two may lie on each other, none may have two places.

Memory is bounded by the bootstrap: 32 bytes for a record of 80.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc

from nydusd.rafs.blobmeta cimport BlobMeta, ChunkPlace
from nydusd.rafs.bootstrap cimport CHUNK_BATCH, Bootstrap
from nydusd.rafs.ondisk_v5 cimport ChunkRecord
from nydusd.rafs.ondisk_v6 cimport V6_EXT_SUPERBLOCK_OFFSET, ExtSuperblockV6

import os

from nydusd.rafs.blobs import BlobFeature

cdef enum:
    GROW = 1024
    LINES_MAX = 100             # of one sort; a table of noise has one at every record


cdef int order(uint64_t left, uint64_t right) noexcept nogil:
    return (left > right) - (left < right)


cdef int by_index(const void *a, const void *b) noexcept nogil:
    cdef const MetChunk *left = <const MetChunk *>a
    cdef const MetChunk *right = <const MetChunk *>b
    return order(left.blob_index, right.blob_index) \
        or order(left.chunk_index, right.chunk_index)


cdef int by_plain_offset(const void *a, const void *b) noexcept nogil:
    cdef const MetChunk *left = <const MetChunk *>a
    cdef const MetChunk *right = <const MetChunk *>b
    return order(left.blob_index, right.blob_index) \
        or order(left.plain_offset, right.plain_offset) \
        or order(left.chunk_index, right.chunk_index)


cdef int by_stored_offset(const void *a, const void *b) noexcept nogil:
    cdef const MetChunk *left = <const MetChunk *>a
    cdef const MetChunk *right = <const MetChunk *>b
    return order(left.blob_index, right.blob_index) \
        or order(left.stored_offset, right.stored_offset) \
        or order(left.chunk_index, right.chunk_index)


@cython.final
cdef class MetChunks:
    """Chunks in the order in which they were met, until `unite` sorts them."""

    def __dealloc__(self):
        free(self.chunks)

    cdef int add(self, const MetChunk *chunk) except -1:
        cdef void *more
        if self.count == self.room:
            more = realloc(self.chunks, (self.room * 2 + GROW) * sizeof(MetChunk))
            if more == NULL:
                raise MemoryError
            self.chunks = <MetChunk *>more
            self.room = self.room * 2 + GROW
        self.chunks[self.count] = chunk[0]
        self.count += 1
        return 0

    cdef list unite(self):
        cdef size_t i
        cdef size_t kept = 0
        cdef const MetChunk *met
        cdef const MetChunk *before
        lines = []
        if self.count == 0:
            return lines
        qsort(self.chunks, self.count, sizeof(MetChunk), by_index)
        for i in range(1, self.count):
            met = &self.chunks[i]
            before = &self.chunks[kept]
            if by_index(before, met) != 0:
                kept += 1
                self.chunks[kept] = met[0]
            elif (before.plain_offset != met.plain_offset or before.plain_size != met.plain_size
                    or before.stored_offset != met.stored_offset
                    or before.stored_size != met.stored_size) and len(lines) < LINES_MAX:
                lines.append(
                    f"chunk {met.chunk_index} of blob {met.blob_index} has two places, at "
                    f"{before.plain_offset:#x} and {met.plain_offset:#x} of the plain blob, at "
                    f"{before.stored_offset:#x} and {met.stored_offset:#x} of the stored one")
        self.count = kept + 1
        return lines

    cdef const MetChunk *find(self, uint32_t blob_index, uint32_t chunk_index) noexcept nogil:
        cdef MetChunk wanted
        cdef size_t low = 0
        cdef size_t high = self.count
        cdef size_t middle
        cdef int side
        wanted.blob_index = blob_index
        wanted.chunk_index = chunk_index
        while low < high:
            middle = low + (high - low) // 2
            side = by_index(&wanted, &self.chunks[middle])
            if side == 0:
                return &self.chunks[middle]
            if side < 0:
                high = middle
            else:
                low = middle + 1
        return NULL

    def overlaps(self):
        """A line for each chunk that lies on another one's bytes, plain or stored.

        After `unite`, whose order is gone then.
        """
        cdef size_t i
        cdef uint64_t end = 0
        cdef const MetChunk *met
        cdef const MetChunk *before = NULL
        lines = []
        if self.count == 0:
            return lines
        qsort(self.chunks, self.count, sizeof(MetChunk), by_plain_offset)
        for i in range(self.count):
            met = &self.chunks[i]
            if before != NULL and before.blob_index == met.blob_index \
                    and met.plain_offset < end and len(lines) < LINES_MAX:
                lines.append(overlap(met, before, met.plain_offset, "plain"))
            if before == NULL or before.blob_index != met.blob_index \
                    or met.plain_offset + met.plain_size >= end:
                before = met
                end = met.plain_offset + met.plain_size
        before = NULL
        qsort(self.chunks, self.count, sizeof(MetChunk), by_stored_offset)
        for i in range(self.count):
            met = &self.chunks[i]
            if met.stored_size == 0:
                continue
            if before != NULL and before.blob_index == met.blob_index \
                    and met.stored_offset < end and len(lines) < 2 * LINES_MAX:
                lines.append(overlap(met, before, met.stored_offset, "stored"))
            if before == NULL or before.blob_index != met.blob_index \
                    or met.stored_offset + met.stored_size >= end:
                before = met
                end = met.stored_offset + met.stored_size
        return lines


cdef object overlap(const MetChunk *met, const MetChunk *before, uint64_t offset, str kind):
    return (f"chunk {met.chunk_index} of blob {met.blob_index} lies on chunk "
            f"{before.chunk_index}, at {offset:#x} of the {kind} blob")


cdef const ExtSuperblockV6 *chunk_table_place(Bootstrap bootstrap) noexcept nogil:
    """The superblock that tells where the chunk table is; NULL for v5, or when there is none."""
    cdef const ExtSuperblockV6 *ext
    if bootstrap.version != 6:
        return NULL
    ext = <const ExtSuperblockV6 *>bootstrap.file.at(
        V6_EXT_SUPERBLOCK_OFFSET, sizeof(ExtSuperblockV6))
    return ext if ext != NULL and ext.chunk_table_size else NULL


def read_chunk_table(Bootstrap bootstrap, MetChunks met):
    """Put the v6 chunk table into *met*; lines about records that cannot be."""
    cdef const ExtSuperblockV6 *ext = chunk_table_place(bootstrap)
    cdef const ChunkRecord *records
    cdef const ChunkRecord *record
    cdef MetChunk chunk
    cdef uint64_t i
    lines = []
    if ext == NULL:
        return lines
    # Several chunks come out of the same stored bytes there.
    together = [bool(blob.features & (BlobFeature.ZRAN | BlobFeature.BATCH))
                for blob in bootstrap.blobs]
    ends = [blob.data_size for blob in bootstrap.blobs]
    records = <const ChunkRecord *>bootstrap.file.at(ext.chunk_table_offset, ext.chunk_table_size)
    if records == NULL:
        return ["the chunk table is cut"]
    for i in range(ext.chunk_table_size // sizeof(ChunkRecord)):
        record = &records[i]
        what = None
        if record.blob_index >= bootstrap.limits_count:
            what = f"is in blob {record.blob_index} of {bootstrap.limits_count}"
        elif record.index >= bootstrap.limits[record.blob_index].chunk_count:
            what = (f"is chunk {record.index} of blob {record.blob_index}, which has "
                    f"{bootstrap.limits[record.blob_index].chunk_count}")
        elif record.uncompressed_size == 0 or record.uncompressed_size > bootstrap.chunk_size:
            what = f"has {record.uncompressed_size} bytes, chunks have {bootstrap.chunk_size}"
        elif is_outside(record.uncompressed_offset, record.uncompressed_size,
                        bootstrap.limits[record.blob_index].uncompressed_end):
            what = f"ends behind its plain blob, at {record.uncompressed_offset:#x}"
        elif not together[record.blob_index] and is_outside(
                record.compressed_offset, record.compressed_size, ends[record.blob_index]):
            what = f"ends behind its stored blob, at {record.compressed_offset:#x}"
        if what is not None:
            if len(lines) < LINES_MAX:
                lines.append(f"record {i} of the chunk table {what}")
            continue
        chunk.plain_offset = record.uncompressed_offset
        chunk.stored_offset = record.compressed_offset
        chunk.blob_index = record.blob_index
        chunk.chunk_index = record.index
        chunk.plain_size = record.uncompressed_size
        chunk.stored_size = record.compressed_size
        if record.flags & CHUNK_BATCH or together[record.blob_index]:
            chunk.stored_size = 0
        met.add(&chunk)
    lines += met.unite()
    return lines


cdef inline bint is_outside(uint64_t offset, uint64_t size, uint64_t end) noexcept nogil:
    return offset > end or size > end - offset


def compare_with_meta(MetChunks met, BlobMeta meta, uint32_t blob_index):
    """Lines about entries of a blob's CI array that cannot be, or that the bootstrap has elsewhere.
    """
    cdef ChunkPlace place
    cdef const MetChunk *chunk
    cdef uint32_t i
    cdef int rc
    lines = []
    met.unite()
    for i in range(meta.count):
        if len(lines) >= LINES_MAX:
            break
        rc = meta.chunk(i, &place)
        if rc != 0:
            lines.append(f"entry {i} of its table of chunks cannot be: {os.strerror(-rc)}")
            continue
        chunk = met.find(blob_index, i)
        if chunk != NULL and (chunk.plain_offset != place.uncompressed_offset
                              or chunk.plain_size != place.uncompressed_size):
            lines.append(
                f"entry {i} of its table of chunks has {place.uncompressed_size} bytes at "
                f"{place.uncompressed_offset:#x} of the plain blob, the bootstrap has "
                f"{chunk.plain_size} at {chunk.plain_offset:#x}")
    return lines
