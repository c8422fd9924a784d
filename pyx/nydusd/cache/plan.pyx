"""From the chunks that a read needs to the byte ranges that a backend is asked for.

Arithmetic on chunk places only: no file, no backend, no lock. The rules are the reference's
(spec, on-demand reads): one request takes in neighbours while the gap between them is at most
batch/128 bytes and the whole has not reached max(128 KiB, batch). It may end half of that later:
else two chunks that are a little longer than half a batch would be two requests, and so would a
short gap and the rest of it. A stored unit (rafs/blobmeta.pxd) is never asked for in parts.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, qsort

from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, ChunkPlace


cdef enum:
    PAGE_BYTES = 4096
    # Plain bytes of what is brought along, in batches: bounds memory when chunks shrink well. Most
    # images shrink to a half or a third; less room than that would cut their requests short.
    PLAIN_BATCHES = 4
    # The same where units come along that many chunks share. They are large, and whoever reads on
    # asks for the next one soon: another thread has it then, beside this one.
    UNIT_BATCHES = 2
    REQUEST_BYTES_MIN = 128 << 10   # a request may always be this long
    GAP_SHIFT = 7                   # a gap of batch_size >> 7 bytes is fetched and thrown away


cdef uint64_t range_goal(uint64_t batch_size) noexcept nogil:
    """A range of so many bytes takes in no further chunk."""
    return batch_size if batch_size > REQUEST_BYTES_MIN else REQUEST_BYTES_MIN


cdef uint64_t range_limit(uint64_t batch_size) noexcept nogil:
    """Longest range, unless one chunk alone is longer."""
    cdef uint64_t goal = range_goal(batch_size)
    return goal + (goal >> 1)


cdef uint64_t gap_limit(uint64_t batch_size) noexcept nogil:
    """Most bytes between two chunks that are fetched and thrown away."""
    return batch_size >> GAP_SHIFT


cdef uint64_t padded(uint64_t plain) noexcept nogil:
    return (plain + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1)


cdef bint same_unit(const ChunkPlace *a, const ChunkPlace *b) noexcept nogil:
    return ((a.flags & CHUNK_SHARES_UNIT) != 0
            and (a.flags & CHUNK_SHARES_UNIT) == (b.flags & CHUNK_SHARES_UNIT)
            and a.context_index == b.context_index
            and a.compressed_offset == b.compressed_offset)


cdef uint32_t unit_end(const Chunk *chunks, uint32_t count, uint32_t start) noexcept nogil:
    cdef uint32_t end = start + 1
    while end < count and same_unit(&chunks[start].place, &chunks[end].place):
        end += 1
    return end


cdef bint is_in_hand(const Chunk *chunk) noexcept nogil:
    return (chunk.state & (CHUNK_WANTED | CHUNK_HAD | CHUNK_BAD | CHUNK_KEPT)
            == CHUNK_WANTED | CHUNK_HAD)


cdef bint adjoins(const Chunk *last, const Chunk *chunk, bint aligned) noexcept nogil:
    cdef uint64_t end = last.place.uncompressed_offset + last.place.uncompressed_size
    cdef uint64_t start = chunk.place.uncompressed_offset
    if start == end:
        return True
    return start > end and start == padded(end) and (aligned or chunk.index == last.index + 1)


cdef void open_window(Window *window, const ChunkPlace *place,
                      uint64_t batch_size) noexcept nogil:
    window.batch_size = batch_size
    window.goal = range_goal(batch_size)
    window.most = range_limit(batch_size)
    window.plain = 0
    window.start = place.compressed_offset
    window.end = place.compressed_offset
    window.last.flags = 0
    widen_window(window, place)


cdef void widen_window(Window *window, const ChunkPlace *place) noexcept nogil:
    cdef uint64_t end = place.compressed_offset + place.compressed_size
    cdef uint64_t plain = place.uncompressed_size
    if same_unit(&window.last, place):
        return
    if place.flags & CHUNK_SHARES_UNIT:
        plain = place.context_size
    if end > window.end:
        window.end = end
    window.plain += padded(plain)
    window.last = place[0]


cdef bint has_room_before(const Window *window, const ChunkPlace *place) noexcept nogil:
    return (window.end - place.compressed_offset <= window.goal
            and window.plain + padded(place.uncompressed_size)
            <= PLAIN_BATCHES * window.batch_size)


cdef void widen_window_before(Window *window, const ChunkPlace *place) noexcept nogil:
    window.start = place.compressed_offset
    window.plain += padded(place.uncompressed_size)


cdef bint in_window(const Window *window, const ChunkPlace *place) noexcept nogil:
    if same_unit(&window.last, place):
        return True         # its bytes come along whether they are wanted or not
    if place.compressed_offset < window.start:
        return False
    if (place.compressed_offset > window.end
            and place.compressed_offset - window.end > gap_limit(window.batch_size)):
        return False
    if place.flags & CHUNK_SHARES_UNIT and (
            window.plain + place.context_size > UNIT_BATCHES * window.batch_size):
        return False
    return (place.compressed_offset - window.start < window.goal
            and place.compressed_offset - window.start + place.compressed_size <= window.most
            and window.plain <= PLAIN_BATCHES * window.batch_size)


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
    if place.compressed_offset + place.compressed_size <= end:
        return True         # another chunk of a unit that is longer than a request may be
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
