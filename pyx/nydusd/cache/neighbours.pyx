"""What is brought along beside the chunks that a read needs: neighbours, remnants, unit mates.

Which request a chunk would be in is arithmetic of `cache.plan`; here it is asked of the chunks that
lie around those of one fetch, and what is neither here nor claimed by somebody else is claimed for
it. Most of that is for later reads: a request costs a round trip, and a chunk more in it does not.
Runs with the GIL, on the thread of the fetch.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

from nydusd.cache.claims cimport Claims
from nydusd.cache.plan cimport (
    CHUNK_WANTED, Window, gap_limit, has_room_before, in_window, open_window, same_unit, unit_end,
    widen_window, widen_window_before,
)
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan


cdef enum:
    REMNANT_SHIFT = 3       # at most an eighth of a batch is fetched before what is needed
    CHUNKS_MAX = 4096       # brought along by one fetch, but for:
    MATES_MAX = 1 << 16     # brought along of units that are had anyway


cdef int bring_neighbours(Claims claims, uint64_t batch_size, const ChunkSpan *following,
                          uint32_t following_count) except -1:
    cdef uint32_t needed = claims.count
    cdef uint32_t index
    cdef uint32_t first
    cdef uint32_t at = 0
    cdef uint32_t next_needed
    cdef uint32_t mates
    cdef const uint8_t *digest = NULL
    cdef ChunkPlace place
    cdef Window window
    if not claims.blob.is_keeping():
        return 0
    if claims.blob.meta is not None:
        bring_mates(claims)
    mates = claims.count
    next_needed = 0 if batch_size else needed
    while next_needed < needed:
        if not claims.chunks[next_needed].state & CHUNK_WANTED:
            next_needed += 1
            continue
        index = claims.chunks[next_needed].index
        place = claims.chunks[next_needed].place    # `add` moves the array
        open_window(&window, &place, batch_size)
        first = index
        if claims.blob.meta is not None:
            first = bring_remnant(
                claims, index, &window, window.end - window.start + (batch_size >> REMNANT_SHIFT))
        next_needed += 1
        at = 0
        while (claims.blob.meta is None and next_needed < needed
                and claims.chunks[next_needed].state & CHUNK_WANTED
                and in_window(&window, &claims.chunks[next_needed].place)):
            widen_window(&window, &claims.chunks[next_needed].place)
            next_needed += 1
        while claims.count - mates < CHUNKS_MAX:
            if claims.blob.meta is not None:
                index += 1
                if index >= claims.blob.chunks.count or claims.blob.meta.chunk(index, &place) != 0:
                    break
            else:
                if at >= following_count or claims.blob.place(&following[at], &place) != 0:
                    break
                index = following[at].chunk_index
                digest = following[at].digest
                at += 1
            if (next_needed < needed and claims.chunks[next_needed].index == index
                    and claims.chunks[next_needed].state & CHUNK_WANTED):
                if not in_window(&window, &place):
                    break
                next_needed += 1
                widen_window(&window, &place)
                continue
            if claims.blob.check_place(&place) != 0 or not in_window(&window, &place):
                break
            if claims.take_along(index, &place, digest):
                widen_window(&window, &place)
        if claims.blob.meta is not None:
            bring_after(claims, index, &window, mates)
            first = bring_before(claims, first, &window, mates)
            bring_remnant(claims, first, &window, window.most)
    claims.sort()
    return 0


cdef uint32_t bring_run(Claims claims, uint32_t first, uint64_t batch_size) except? 0xffffffff:
    cdef ChunkPlace place
    cdef Window window
    cdef uint32_t index = first
    while index < claims.blob.chunks.count and index - first < CHUNKS_MAX:
        if (claims.blob.meta.chunk(index, &place) != 0 or claims.blob.check_place(&place) != 0
                or place.flags & CHUNK_SHARES_UNIT
                or index > first and not in_window(&window, &place)
                or not claims.take_along(index, &place, NULL)):
            break
        if index == first:
            open_window(&window, &place, batch_size)
        else:
            widen_window(&window, &place)
        index += 1
    if index == first:
        return first
    bring_after(claims, index, &window, 0)
    index = claims.chunks[claims.count - 1].index + 1
    claims.sort()
    return index


cdef int bring_after(Claims claims, uint32_t first, Window *window, uint32_t mates) except -1:
    """Claim what is missing from chunk *first* on, where that is little: see `Window.most`.

    It is what would be left of a gap, and a request of its own.
    """
    cdef ChunkPlace place
    cdef Window closed = window[0]
    cdef uint32_t end = first
    closed.goal = closed.most
    while end < claims.blob.chunks.count:
        if claims.blob.meta.chunk(end, &place) != 0 or claims.blob.check_place(&place) != 0:
            return 0
        if claims.blob.has(end, &place) or claims.blob.chunks.is_claimed(end):
            break
        if (place.flags & CHUNK_SHARES_UNIT or not in_window(&closed, &place)
                or claims.count - mates + (end - first) >= CHUNKS_MAX):
            return 0
        widen_window(&closed, &place)
        end += 1
    while first < end:
        if claims.blob.meta.chunk(first, &place) != 0 or not claims.take_along(first, &place, NULL):
            return 0
        widen_window(window, &place)
        first += 1
    return 0


cdef uint32_t bring_before(Claims claims, uint32_t index, Window *window,
                           uint32_t mates) except? 0xffffffff:
    """Claim what is missing directly before chunk *index*, while the window has room for it.

    The first chunk of the window then. It has room when it met what is here already, or the
    blob's end: reads that jump about an image leave short gaps, and each would become a request
    of its own, and a round trip.
    """
    cdef ChunkPlace place
    cdef uint64_t end
    while index > 0 and claims.count - mates < CHUNKS_MAX:
        if (claims.blob.meta.chunk(index - 1, &place) != 0 or claims.blob.check_place(&place) != 0
                or place.flags & CHUNK_SHARES_UNIT):
            break
        end = place.compressed_offset + place.compressed_size
        if end > window.start or window.start - end > gap_limit(window.batch_size):
            break
        if (not has_room_before(window, &place)
                or not claims.take_along(index - 1, &place, NULL)):
            break
        widen_window_before(window, &place)
        index -= 1
    return index


cdef uint32_t bring_remnant(Claims claims, uint32_t index, Window *window,
                            uint64_t most) except? 0xffffffff:
    """Claim all that is missing directly before chunk *index*, if that is little.

    So little that the window has *most* bytes at most. The first chunk of it, or *index*.

    Readers that go through an image side by side leave remnants between their windows: too
    little to be worth requests of their own, which they would become.
    """
    cdef ChunkPlace place
    cdef uint32_t first = remnant_start(claims, index, window, most)
    cdef uint32_t i
    if first == index or claims.blob.meta.chunk(first, &place) != 0:
        return index
    window.start = place.compressed_offset
    for i in range(first, index):
        if claims.blob.meta.chunk(i, &place) != 0:
            break
        claims.take_along(i, &place, NULL)
        window.plain += place.uncompressed_size
    return first


cdef uint32_t remnant_start(Claims claims, uint32_t index, const Window *window,
                            uint64_t most) noexcept nogil:
    """First chunk of the remnant that ends before *index*; *index* when there is none."""
    cdef ChunkPlace place
    cdef Window whole = window[0]
    cdef uint64_t end
    cdef uint32_t first = index
    whole.goal = most
    while first > 0:
        if (claims.blob.meta.chunk(first - 1, &place) != 0 or claims.blob.check_place(&place) != 0
                or place.flags & CHUNK_SHARES_UNIT):
            return index
        end = place.compressed_offset + place.compressed_size
        if end > whole.start or whole.start - end > gap_limit(whole.batch_size):
            return index
        if claims.blob.has(first - 1, &place) or claims.blob.chunks.is_claimed(first - 1):
            break
        if not has_room_before(&whole, &place) or index - first >= CHUNKS_MAX:
            return index
        widen_window_before(&whole, &place)
        first -= 1
    return first


cdef int bring_mates(Claims claims) except -1:
    """Claim the other chunks of each shared unit that is wanted: its bytes are had anyway."""
    cdef uint32_t needed = claims.count
    cdef uint32_t start = 0
    cdef uint32_t end
    cdef uint32_t i
    cdef ChunkPlace first
    while start < needed:
        end = unit_end(claims.chunks, needed, start)
        if claims.chunks[start].place.flags & CHUNK_SHARES_UNIT:
            for i in range(start, end):
                if claims.chunks[i].state & CHUNK_WANTED:
                    first = claims.chunks[i].place
                    bring_mates_from(claims, claims.chunks[i].index, &first, -1, needed)
                    bring_mates_from(claims, claims.chunks[i].index, &first, 1, needed)
                    break
        start = end
    return 0


cdef int bring_mates_from(Claims claims, uint32_t index, const ChunkPlace *unit, int step,
                          uint32_t needed) except -1:
    """Claim the chunks of *unit* from *index* on, up or down: they have adjacent numbers."""
    cdef int64_t at = <int64_t>index + step
    cdef ChunkPlace place
    while 0 <= at < claims.blob.chunks.count and claims.count - needed < MATES_MAX:
        if (claims.blob.meta.chunk(<uint32_t>at, &place) != 0 or not same_unit(&place, unit)
                or claims.blob.check_place(&place) != 0):
            break
        claims.take_along(<uint32_t>at, &place, NULL)
        at += step
    return 0
