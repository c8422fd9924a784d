"""From the chunks that a read needs to the byte ranges that a backend is asked for.

Arithmetic on chunk places only: no file, no backend, no lock. The rules are the reference's
(spec, on-demand reads): one request takes in neighbours while the gap between them is at most
batch/128 bytes and the whole at most max(128 KiB, batch).
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort

from nydusd.rafs.blobmeta cimport ChunkPlace


cdef enum:
    REQUEST_BYTES_MIN = 128 << 10   # a request may always be this long
    GAP_SHIFT = 7                   # a gap of batch_size >> 7 bytes is fetched and thrown away


cdef uint64_t range_limit(uint64_t batch_size) noexcept nogil:
    """Longest range, unless one chunk alone is longer."""
    return batch_size if batch_size > REQUEST_BYTES_MIN else REQUEST_BYTES_MIN


cdef uint64_t gap_limit(uint64_t batch_size) noexcept nogil:
    return batch_size >> GAP_SHIFT


cdef int by_place(const void *left, const void *right) noexcept nogil:
    cdef const Chunk *a = <const Chunk *>left
    cdef const Chunk *b = <const Chunk *>right
    if a.place.compressed_offset != b.place.compressed_offset:
        return -1 if a.place.compressed_offset < b.place.compressed_offset else 1
    if a.index != b.index:
        return -1 if a.index < b.index else 1
    return 0


cdef uint32_t sort_chunks(Chunk *chunks, uint32_t count) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t kept = 0
    if count > 0:   # *chunks* may be NULL else, which qsort must not be given
        qsort(chunks, count, sizeof(Chunk), by_place)
    for i in range(count):
        if kept > 0 and by_place(&chunks[kept - 1], &chunks[i]) == 0:
            chunks[kept - 1].state |= chunks[i].state
        else:
            chunks[kept] = chunks[i]
            kept += 1
    return kept


cdef bint joins(const Range *last, const ChunkPlace *place, uint64_t batch_size) noexcept nogil:
    """Whether the chunk at *place* (not before *last* begins) belongs to the same request."""
    cdef uint64_t end = last.offset + last.size
    if place.compressed_offset > end:
        if place.compressed_offset - end > gap_limit(batch_size):
            return False
    return place.compressed_offset - last.offset + place.compressed_size <= range_limit(batch_size)


cdef uint32_t merge_ranges(const Chunk *chunks, uint32_t count, uint64_t batch_size,
                           Range *ranges) noexcept nogil:
    cdef uint32_t i
    cdef uint32_t n = 0
    cdef uint64_t end
    cdef Range *last = NULL
    for i in range(count):
        if chunks[i].state & (CHUNK_WANTED | CHUNK_PLAIN | CHUNK_BAD) != CHUNK_WANTED:
            continue
        if last != NULL and joins(last, &chunks[i].place, batch_size):
            end = chunks[i].place.compressed_offset - last.offset + chunks[i].place.compressed_size
            if end > last.size:
                last.size = end
            last.count = i + 1 - last.first
            continue
        last = &ranges[n]
        last.offset = chunks[i].place.compressed_offset
        last.size = chunks[i].place.compressed_size
        last.first = i
        last.count = 1
        n += 1
    return n


def plan_requests(list places, uint64_t batch_size):
    """`(offset, size)` of each backend request for chunks at *places*: `(offset, size)` each."""
    cdef uint32_t count = len(places)
    cdef Chunk *chunks = <Chunk *>calloc(count or 1, sizeof(Chunk))
    cdef Range *ranges = <Range *>calloc(count or 1, sizeof(Range))
    cdef uint32_t i
    try:
        if chunks == NULL or ranges == NULL:
            raise MemoryError
        for i in range(count):
            chunks[i].index = i
            chunks[i].state = CHUNK_WANTED
            chunks[i].place.compressed_offset, chunks[i].place.compressed_size = places[i]
        count = merge_ranges(chunks, sort_chunks(chunks, count), batch_size, ranges)
        return [(ranges[i].offset, ranges[i].size) for i in range(count)]
    finally:
        free(chunks)
        free(ranges)
