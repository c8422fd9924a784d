"""Getting the missing chunks of one blob: claim, one backend read a range, keep.

Turning stored bytes into checked plain ones is `cache.decode`'s part. `Device.fetch` puts these
steps together for a read, `cache.prefetch` for the background: whatever a reader waits for is
decoded and answered first; then the rest is decoded and all of it written to the cache file, slice
by slice, so that few bytes are written to memory that has not just been used. Chunks that share a
stored unit (rafs/blobmeta.pxd) are fetched and decoded together. Runs with the GIL on a
thread that may wait; backend, decompression and disk give it up. One `Fetch` belongs to one thread
and ends with `release` and `drop`, whatever happened.
"""

import logging

from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_Resize,
)
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport ENODATA
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy, memset

cimport cython

from nydusd.cache.cached_blob cimport (
    COUNT_BACKEND_BYTES, COUNT_KEPT_BYTES, COUNT_KEPT_CHUNKS,
    COUNT_PREFETCH_BYTES, COUNT_PREFETCH_CHUNKS, COUNT_PREFETCH_REQUESTS,
    COUNT_REQUESTS, CachedBlob,
)
from nydusd.cache.decode cimport Decoder
from nydusd.cache.heap cimport give_buffer, take_buffer
from nydusd.cache.plan cimport (
    CHUNK_BAD, CHUNK_HAD, CHUNK_KEPT, CHUNK_MINE, CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_READY,
    CHUNK_WANTED, Chunk, Range, Window, gap_limit, has_room_before, in_window, merge_ranges,
    open_window, same_unit, sort_chunks, unit_end, widen_window, widen_window_before,
)
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, CHUNK_ZRAN, ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan

from nydusd.base.errors import BackendError, BlobCorrupt, ChunkCorrupt, FailureKind
from nydusd.rafs.blobs import BlobFeature


cdef extern from "<Python.h>":
    int PyBUF_READ

cdef enum:
    PAGE_BYTES = 4096
    REMNANT_SHIFT = 3       # at most an eighth of a batch is fetched before what is needed
    CHUNKS_MAX = 4096       # brought along by one fetch, but for:
    MATES_MAX = 1 << 16     # brought along of units that are had anyway
    STAGING_BYTES = 1 << 20     # chunks of a unit are put side by side, as in the cache file, in
    # Plain bytes that are decoded before they are written to the cache file: they are in the
    # processor's cache then, and the next ones take their place.
    SLICE_BYTES = 1 << 19

# Failures that may be those of the range: a stretch that cannot be read, the blob's end in it.
RANGE_FAILURES = (FailureKind.OTHER, FailureKind.SHORT, FailureKind.LONG, FailureKind.RANGE)
STATUS_NOT_SATISFIABLE = 416
logger = logging.getLogger("nydusd")


cdef bint is_same_place(const ChunkPlace *a, const ChunkPlace *b) noexcept nogil:
    return (a.compressed_offset == b.compressed_offset and a.compressed_size == b.compressed_size
            and a.uncompressed_size == b.uncompressed_size and a.flags == b.flags
            and a.crc32 == b.crc32 and a.context_index == b.context_index
            and a.context_offset == b.context_offset and a.context_size == b.context_size)


@cython.final
cdef class Fetch:
    """One fetch from *blob*; *prefetching* when nobody waits for it."""

    def __cinit__(self, CachedBlob blob, bint prefetching=False):
        self.blob = blob
        self.chunks = NULL
        self.ranges = NULL
        self.count = self.room = self.missing = self.wanted = self.range_count = self.runs = 0
        self.cursor = 0
        self.stored = []
        self.stored_elsewhere = False
        self.decoder = Decoder(blob)
        self.aligned = BlobFeature.ALIGNED in blob.info.features
        self.prefetching = prefetching
        self.entered = False
        blob.enter()
        self.entered = True

    def __dealloc__(self):
        free(self.chunks)
        free(self.ranges)

    cdef Chunk *add(self, uint32_t index, const ChunkPlace *place, const uint8_t *digest,
                    uint32_t state) except NULL:
        cdef Chunk *grown
        cdef Chunk *chunk
        if self.count == self.room:
            self.room = self.room * 2 if self.room else 32
            grown = <Chunk *>realloc(self.chunks, self.room * sizeof(Chunk))
            if grown == NULL:
                raise MemoryError
            self.chunks = grown
        chunk = &self.chunks[self.count]
        memset(chunk, 0, sizeof(Chunk))
        chunk.index = index
        chunk.place = place[0]
        chunk.digest = self.blob.digest_of(index, digest)
        chunk.state = state
        self.count += 1
        return chunk

    cdef int need(self, const ChunkSpan *span) except -1:
        cdef ChunkPlace place
        cdef int rc
        self.blob.need_description()
        rc = self.blob.place(span, &place)
        if rc != 0 and self.blob.meta is not None and self.blob.renew_description():
            rc = self.blob.place(span, &place)
        if rc != 0:
            raise ChunkCorrupt(self.blob.info.blob_id, span.chunk_index,
                               "its place in the bootstrap and in the blob do not agree")
        self.blob.note_use(span.chunk_index, &place)
        self.add(span.chunk_index, &place, span.digest, CHUNK_NEEDED)
        return 0

    cdef int sort(self) except -1:
        self.count = sort_chunks(self.chunks, self.count)
        return 0

    cdef const Chunk *find(self, uint32_t index) noexcept nogil:
        """The chunk *index*, NULL when it is not of this fetch; cheap for ascending indexes."""
        cdef uint32_t _n
        for _n in range(self.count):
            if self.chunks[self.cursor].index == index:
                return &self.chunks[self.cursor]
            self.cursor = (self.cursor + 1) % self.count
        return NULL

    cdef int look_up(self) except -1:
        self.missing = self.decoder.look_up(self.chunks, self.count)
        return 0

    # --- claims

    cdef int claim(self, bint regardless) except -1:
        cdef uint32_t i
        cdef Chunk *chunk
        for i in range(self.count):
            chunk = &self.chunks[i]
            if (chunk.state & (CHUNK_NEEDED | CHUNK_READY | CHUNK_PLAIN | CHUNK_WANTED)
                    != CHUNK_NEEDED):
                continue
            if not self.blob.keeps:
                chunk.state |= CHUNK_WANTED
            elif self.blob.chunks.claim(chunk.index):
                chunk.state |= CHUNK_MINE
                # Somebody may have ended a fetch of it between our look and our claim.
                if (self.blob.has_claimed(chunk.index, &chunk.place)
                        and self.decoder.look_up(chunk, 1) == 0):
                    self.missing -= 1
                    continue
                chunk.state |= CHUNK_WANTED
            elif regardless:
                chunk.state |= CHUNK_WANTED
            else:
                continue
            self.wanted += 1
        return 0

    cdef bint take_along(self, uint32_t index, const ChunkPlace *place,
                         const uint8_t *digest) except -1:
        """Claim a chunk that nobody waits for; false when it is here or somebody else's."""
        if self.blob.has(index, place) or not self.blob.chunks.claim(index):
            return False
        if self.blob.has_claimed(index, place):
            self.blob.chunks.release(index)
            return False
        self.add(index, place, digest, CHUNK_MINE | CHUNK_WANTED)
        return True

    cdef int bring_along(self, uint64_t batch_size, const ChunkSpan *following,
                         uint32_t following_count) except -1:
        cdef uint32_t needed = self.count
        cdef uint32_t index
        cdef uint32_t first
        cdef uint32_t at = 0
        cdef uint32_t next_needed
        cdef uint32_t mates
        cdef ChunkPlace place
        cdef Window window
        if not self.blob.is_keeping():
            return 0
        if self.blob.meta is not None:
            self.bring_mates()
        mates = self.count
        next_needed = 0 if batch_size else needed
        while next_needed < needed:
            if not self.chunks[next_needed].state & CHUNK_WANTED:
                next_needed += 1
                continue
            index = self.chunks[next_needed].index
            place = self.chunks[next_needed].place      # `add` moves the array
            open_window(&window, &place, batch_size)
            first = index
            if self.blob.meta is not None:
                first = self.bring_remnant(
                    index, &window, window.end - window.start + (batch_size >> REMNANT_SHIFT))
            next_needed += 1
            at = 0
            while (self.blob.meta is None and next_needed < needed
                    and self.chunks[next_needed].state & CHUNK_WANTED
                    and in_window(&window, &self.chunks[next_needed].place)):
                widen_window(&window, &self.chunks[next_needed].place)
                next_needed += 1
            while self.count - mates < CHUNKS_MAX:
                if self.blob.meta is not None:
                    index += 1
                    if index >= self.blob.chunks.count or self.blob.meta.chunk(index, &place) != 0:
                        break
                else:
                    if at >= following_count or self.blob.place(&following[at], &place) != 0:
                        break
                    index = following[at].chunk_index
                    at += 1
                if (next_needed < needed and self.chunks[next_needed].index == index
                        and self.chunks[next_needed].state & CHUNK_WANTED):
                    if not in_window(&window, &place):
                        break
                    next_needed += 1
                    widen_window(&window, &place)
                    continue
                if self.blob.check_place(&place) != 0 or not in_window(&window, &place):
                    break
                if self.take_along(index, &place, NULL if self.blob.meta is not None
                                   else following[at - 1].digest):
                    widen_window(&window, &place)
            if self.blob.meta is not None:
                self.bring_after(index, &window, mates)
                first = self.bring_before(first, &window, mates)
                self.bring_remnant(first, &window, window.most)
        self.sort()
        return 0

    cdef int bring_after(self, uint32_t first, Window *window, uint32_t mates) except -1:
        """Claim what is missing from chunk *first* on, where that is little: see `Window.most`.

        It is what would be left of a gap, and a request of its own.
        """
        cdef ChunkPlace place
        cdef Window closed = window[0]
        cdef uint32_t end = first
        closed.goal = closed.most
        while end < self.blob.chunks.count:
            if self.blob.meta.chunk(end, &place) != 0 or self.blob.check_place(&place) != 0:
                return 0
            if self.blob.has(end, &place) or self.blob.chunks.is_claimed(end):
                break
            if (place.flags & CHUNK_SHARES_UNIT or not in_window(&closed, &place)
                    or self.count - mates + (end - first) >= CHUNKS_MAX):
                return 0
            widen_window(&closed, &place)
            end += 1
        while first < end:
            if self.blob.meta.chunk(first, &place) != 0 or not self.take_along(first, &place, NULL):
                return 0
            widen_window(window, &place)
            first += 1
        return 0

    cdef uint32_t bring_before(self, uint32_t index, Window *window,
                               uint32_t mates) except? 0xffffffff:
        """Claim what is missing directly before chunk *index*, while the window has room for it.

        The first chunk of the window then. It has room when it met what is here already, or the
        blob's end: reads that jump about an image leave short gaps, and each would become a request
        of its own, and a round trip.
        """
        cdef ChunkPlace place
        cdef uint64_t end
        while index > 0 and self.count - mates < CHUNKS_MAX:
            if (self.blob.meta.chunk(index - 1, &place) != 0 or self.blob.check_place(&place) != 0
                    or place.flags & CHUNK_SHARES_UNIT):
                break
            end = place.compressed_offset + place.compressed_size
            if end > window.start or window.start - end > gap_limit(window.batch_size):
                break
            if (not has_room_before(window, &place)
                    or not self.take_along(index - 1, &place, NULL)):
                break
            widen_window_before(window, &place)
            index -= 1
        return index

    cdef uint32_t bring_remnant(self, uint32_t index, Window *window,
                                uint64_t most) except? 0xffffffff:
        """Claim all that is missing directly before chunk *index*, if that is little.

        So little that the window has *most* bytes at most. The first chunk of it, or *index*.

        Readers that go through an image side by side leave remnants between their windows: too
        little to be worth requests of their own, which they would become.
        """
        cdef ChunkPlace place
        cdef uint32_t first = self.remnant_start(index, window, most)
        cdef uint32_t i
        if first == index or self.blob.meta.chunk(first, &place) != 0:
            return index
        window.start = place.compressed_offset
        for i in range(first, index):
            if self.blob.meta.chunk(i, &place) != 0:
                break
            self.take_along(i, &place, NULL)
            window.plain += place.uncompressed_size
        return first

    cdef uint32_t remnant_start(self, uint32_t index, const Window *window,
                                uint64_t most) noexcept nogil:
        """First chunk of the remnant that ends before *index*; *index* when there is none."""
        cdef ChunkPlace place
        cdef Window whole = window[0]
        cdef uint64_t end
        cdef uint32_t first = index
        whole.goal = most
        while first > 0:
            if (self.blob.meta.chunk(first - 1, &place) != 0 or self.blob.check_place(&place) != 0
                    or place.flags & CHUNK_SHARES_UNIT):
                return index
            end = place.compressed_offset + place.compressed_size
            if end > whole.start or whole.start - end > gap_limit(whole.batch_size):
                return index
            if self.blob.has(first - 1, &place) or self.blob.chunks.is_claimed(first - 1):
                break
            if not has_room_before(&whole, &place) or index - first >= CHUNKS_MAX:
                return index
            widen_window_before(&whole, &place)
            first -= 1
        return first

    cdef int bring_mates(self) except -1:
        """Claim the other chunks of each shared unit that is wanted: its bytes are had anyway."""
        cdef uint32_t needed = self.count
        cdef uint32_t start = 0
        cdef uint32_t end
        cdef uint32_t i
        cdef ChunkPlace first
        while start < needed:
            end = unit_end(self.chunks, needed, start)
            if self.chunks[start].place.flags & CHUNK_SHARES_UNIT:
                for i in range(start, end):
                    if self.chunks[i].state & CHUNK_WANTED:
                        first = self.chunks[i].place
                        self.bring_mates_from(self.chunks[i].index, &first, -1, needed)
                        self.bring_mates_from(self.chunks[i].index, &first, 1, needed)
                        break
            start = end
        return 0

    cdef int bring_mates_from(self, uint32_t index, const ChunkPlace *unit, int step,
                              uint32_t needed) except -1:
        """Claim the chunks of *unit* from *index* on, up or down: they have adjacent numbers."""
        cdef int64_t at = <int64_t>index + step
        cdef ChunkPlace place
        while 0 <= at < self.blob.chunks.count and self.count - needed < MATES_MAX:
            if (self.blob.meta.chunk(<uint32_t>at, &place) != 0 or not same_unit(&place, unit)
                    or self.blob.check_place(&place) != 0):
                break
            self.take_along(<uint32_t>at, &place, NULL)
            at += step
        return 0

    # --- from the backend

    cdef int get(self, uint64_t batch_size) except -1:
        cdef Range *wanted = <Range *>calloc(self.count or 1, sizeof(Range))
        cdef uint32_t had = self.range_count
        cdef uint32_t count
        cdef uint32_t i
        if wanted == NULL:
            raise MemoryError
        try:
            self.decoder.reserve(self.chunks, self.count)
            count = merge_ranges(self.chunks, self.count, batch_size, wanted)
            for i in range(count):
                self.get_range(&wanted[i])
        finally:
            free(wanted)
        self.decode_needed(had)
        try:
            return self.decoder.raise_bad(self.chunks, self.count)
        except ChunkCorrupt as exc:
            exc.elsewhere = self.distrust_bad() or self.renew_table()
            raise

    cdef bint renew_table(self) except -1:
        """Whether a bad chunk lies elsewhere by a table fetched anew: the kept one was damaged."""
        cdef ChunkPlace place
        cdef uint32_t i
        if self.blob.meta is None:
            return False
        try:
            if not self.blob.renew_description():
                return False
        except (BackendError, BlobCorrupt) as exc:
            logger.warning("blob %s: its table of chunks cannot be fetched again: %s",
                           self.blob.info.blob_id, exc)
            return False
        for i in range(self.count):
            if self.chunks[i].state & CHUNK_BAD and (
                    self.blob.meta.chunk(self.chunks[i].index, &place) != 0
                    or place.flags & CHUNK_ZRAN     # its dictionary is in the table as well
                    or not is_same_place(&place, &self.chunks[i].place)):
                return True
        return False

    cdef bint distrust_bad(self) except -1:
        """Tell the backend which ranges were corrupt; whether it has another source for them."""
        cdef uint32_t i
        cdef uint32_t c
        cdef bint elsewhere = False
        for i in range(self.range_count):
            for c in range(self.ranges[i].first, self.ranges[i].first + self.ranges[i].count):
                if self.chunks[c].state & CHUNK_BAD:
                    if self.blob.reader.distrust(self.ranges[i].offset, self.ranges[i].size):
                        elsewhere = True
                    break
        return elsewhere

    cdef int decode_needed(self, uint32_t first) except -1:
        """Decode and check what is needed of the ranges from number *first* on.

        Chunks that lie between those of an earlier one may be needed by now; but only of what a
        range was asked for all bytes are in it.
        """
        cdef uint32_t i
        for i in range(first, self.range_count):
            self.lay_out(self.ranges[i].first, self.ranges[i].count, CHUNK_NEEDED)
            self.decode(i, self.ranges[i].first, self.ranges[i].count, True)
        return 0

    cdef int decode(self, uint32_t i, uint32_t first, uint32_t count, bint needed) except -1:
        """Decode and check *count* chunks of range *i*, those that are *needed* or the others."""
        return self.decoder.decode(
            self.chunks + first, count, <const uint8_t *>PyByteArray_AS_STRING(self.stored[i]),
            self.ranges[i].offset, needed)

    cdef int get_range(self, const Range *wanted) except -1:
        """Have one range; when it fails with what was brought along, try without."""
        cdef uint32_t i
        cdef uint32_t needed = 0
        cdef uint32_t others = 0
        for i in range(wanted.first, wanted.first + wanted.count):
            if self.is_pending(i):
                if self.chunks[i].state & CHUNK_NEEDED:
                    needed += 1
                else:
                    others += 1
        if needed == 0 and not (self.prefetching and others):
            return 0        # only what came along: not worth a request of its own
        try:
            return self.read_range(wanted)
        except BackendError as exc:
            # Who does not answer will not answer a shorter question either.
            if needed == 0 or others == 0 or not (
                    exc.kind in RANGE_FAILURES or exc.status == STATUS_NOT_SATISFIABLE):
                raise
        return self.get_exactly(wanted.first, wanted.count)

    cdef int get_exactly(self, uint32_t first, uint32_t count) except -1:
        """The needed ones of the chunks [first, first + count), without gaps and neighbours."""
        cdef Range *wanted = <Range *>calloc(count, sizeof(Range))
        cdef uint32_t i
        cdef uint32_t n
        if wanted == NULL:
            raise MemoryError
        try:
            for i in range(first, first + count):
                if not self.chunks[i].state & CHUNK_NEEDED:
                    self.chunks[i].state &= ~<uint32_t>CHUNK_WANTED
            n = merge_ranges(self.chunks + first, count, 0, wanted)
            for i in range(n):
                wanted[i].first += first
                self.read_range(&wanted[i])
        finally:
            free(wanted)
        return 0

    cdef int read_range(self, const Range *wanted) except -1:
        cdef bytearray raw = take_buffer(wanted.size)
        self.blob.counters.add(COUNT_REQUESTS, 1)
        self.blob.counters.add(COUNT_BACKEND_BYTES, wanted.size)
        if self.prefetching:
            self.blob.counters.add(COUNT_PREFETCH_REQUESTS, 1)
            self.blob.counters.add(COUNT_PREFETCH_BYTES, wanted.size)
            self.blob.counters.add(COUNT_PREFETCH_CHUNKS, self.wanted_in(wanted))
        self.blob.reader.read_into(raw, wanted.offset, background=self.prefetching)
        return self.take_range(wanted, raw)

    cdef int take_stored(self, uint64_t offset, bytearray stored) except -1:
        cdef Range whole
        self.stored_elsewhere = True
        whole.offset = offset
        whole.size = len(stored)
        whole.first = 0
        whole.count = self.count
        return self.take_range(&whole, stored)

    cdef uint32_t wanted_in(self, const Range *wanted) noexcept nogil:
        cdef uint32_t found = 0
        cdef uint32_t i
        for i in range(wanted.first, wanted.first + wanted.count):
            if self.chunks[i].state & CHUNK_WANTED:
                found += 1
        return found

    cdef int take_range(self, const Range *wanted, bytearray raw) except -1:
        """Add what was had, *raw*, to the ranges."""
        cdef uint32_t i
        cdef Range *grown = <Range *>realloc(self.ranges, (self.range_count + 1) * sizeof(Range))
        if grown == NULL:
            raise MemoryError
        self.ranges = grown
        self.ranges[self.range_count] = wanted[0]
        self.range_count += 1
        self.blob.buffered += wanted.size
        self.stored.append(raw)
        for i in range(wanted.first, wanted.first + wanted.count):
            if self.chunks[i].state & CHUNK_WANTED:
                self.chunks[i].state |= CHUNK_HAD
        return 0

    cdef int lay_out(self, uint32_t start, uint32_t count, uint32_t state) except -1:
        """Give *count* chunks that were had and are in *state* room.

        It is in runs that lie as in the cache file. Chunks of a shared unit get theirs when it is
        decoded.
        """
        cdef uint32_t limit = start + count
        cdef uint32_t end
        while start < limit:
            if not self.needs_room(start, state):
                start += 1
                continue
            end = start + 1
            while end < limit and self.needs_room(end, state) and self.adjoins(end):
                end += 1
            self.place_run(start, end)
            start = end
        return 0

    cdef bint is_pending(self, uint32_t i) noexcept nogil:
        return self.chunks[i].state & (CHUNK_WANTED | CHUNK_HAD) == CHUNK_WANTED

    cdef bint needs_room(self, uint32_t i, uint32_t state) noexcept nogil:
        return (self.is_in_hand(i) and self.chunks[i].state & state == state
                and self.chunks[i].plain == NULL
                and not self.chunks[i].place.flags & CHUNK_SHARES_UNIT)

    cdef bint is_in_hand(self, uint32_t i) noexcept nogil:
        """Whether chunk *i* was had, is no worse than it should be, and not kept yet."""
        return (self.chunks[i].state & (CHUNK_WANTED | CHUNK_HAD | CHUNK_BAD | CHUNK_KEPT)
                == CHUNK_WANTED | CHUNK_HAD)

    cdef bint adjoins(self, uint32_t i) noexcept nogil:
        """Whether nothing but padding can lie between chunk *i* and the one before it.

        Padding is written as zeros, so what might be another chunk must not be taken for it.
        """
        cdef const Chunk *last = &self.chunks[i - 1]
        cdef uint64_t end = last.place.uncompressed_offset + last.place.uncompressed_size
        cdef uint64_t start = self.chunks[i].place.uncompressed_offset
        if start == end:
            return True
        if start < end or start != (end + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1):
            return False
        return self.aligned or self.chunks[i].index == last.index + 1

    cdef int place_run(self, uint32_t start, uint32_t end) except -1:
        """One buffer for the chunks [start, end); gaps between them are zero."""
        cdef const ChunkPlace *first = &self.chunks[start].place
        cdef const ChunkPlace *last = &self.chunks[end - 1].place
        cdef bytearray plain = take_buffer(
            last.uncompressed_offset - first.uncompressed_offset + last.uncompressed_size)
        cdef uint8_t *base = <uint8_t *>PyByteArray_AS_STRING(plain)
        cdef uint64_t at
        cdef uint64_t filled = 0
        cdef uint32_t i
        self.decoder.buffers.append(plain)
        self.runs += 1
        for i in range(start, end):
            at = self.chunks[i].place.uncompressed_offset - first.uncompressed_offset
            memset(base + filled, 0, at - filled)
            self.chunks[i].plain = base + at
            self.chunks[i].run = self.runs
            filled = at + self.chunks[i].place.uncompressed_size
        return 0

    # --- to the cache file

    cdef bint is_keepable(self, uint32_t i) noexcept nogil:
        if self.blob.uses is not None and not self.chunks[i].state & CHUNK_MINE:
            return False    # who has the claim may be taking the chunk's bytes away
        return (self.chunks[i].state & (CHUNK_WANTED | CHUNK_PLAIN | CHUNK_KEPT)
                == CHUNK_WANTED | CHUNK_PLAIN)

    cdef bint keep(self) except -1:
        cdef uint32_t i
        cdef uint32_t start
        cdef uint32_t limit
        cdef uint32_t end
        if not self.blob.keeps:
            return False
        for i in range(self.range_count):
            start = self.ranges[i].first
            limit = start + self.ranges[i].count
            while start < limit:
                end = self.slice_end(start, limit)
                self.keep_slice(i, start, end)
                start = end
        for i in range(self.count):
            if self.chunks[i].state & (CHUNK_WANTED | CHUNK_NEEDED | CHUNK_KEPT) == (
                    CHUNK_WANTED | CHUNK_NEEDED):
                return False
        return True

    cdef uint32_t slice_end(self, uint32_t start, uint32_t limit) noexcept nogil:
        """Where the slice from chunk *start* on ends: whole units of about SLICE_BYTES."""
        cdef uint64_t size = 0
        cdef uint32_t end = start
        while end < limit and size < SLICE_BYTES:
            start = end
            end = min(limit, unit_end(self.chunks, limit, start))
            while start < end:
                if self.is_in_hand(start):
                    size += self.chunks[start].place.uncompressed_size
                start += 1
        return end

    cdef int keep_slice(self, uint32_t i, uint32_t start, uint32_t end) except -1:
        """Decode what came along of the chunks [start, end) of range *i*, and keep all of them.

        Chunks that nobody waits for are not held any longer, kept or not.
        """
        cdef list buffers = self.decoder.buffers
        cdef Py_ssize_t held = len(buffers)
        cdef Py_ssize_t own
        cdef uint32_t c
        self.lay_out(start, end - start, 0)
        own = len(buffers)
        self.decode(i, start, end - start, False)
        self.keep_chunks(start, end)
        for c in range(start, end):
            if not self.chunks[c].state & CHUNK_NEEDED:
                self.chunks[c].state &= ~<uint32_t>(CHUNK_WANTED | CHUNK_PLAIN)
                self.chunks[c].plain = NULL
        del buffers[own:]       # of shared units, which others may have been given too
        while len(buffers) > held:
            give_buffer(buffers.pop())
        return 0

    cdef int keep_chunks(self, uint32_t i, uint32_t limit) except -1:
        """Write those of the chunks [i, limit) that are good to the cache file."""
        cdef uint32_t end
        cdef int rc
        while i < limit:
            if not self.is_keepable(i):
                i += 1
                continue
            end = i + 1
            while end < limit and self.is_keepable(end) and self.belong_together(i, end):
                end += 1
            if self.blob.compressed:
                rc = self.store_stored(i, end)
            elif self.chunks[i].run:
                rc = self.store_run(i, end)
            else:
                rc = self.store_staged(i, end)
            self.blob.disk_refuses = rc != 0
            if rc != 0 and self.blob.file.keeps:
                self.blob.note_disk(rc)
            i = end
        return 0

    cdef bint belong_together(self, uint32_t i, uint32_t j) noexcept nogil:
        """Whether the chunks *i* < *j* go to the cache file in one go."""
        if self.blob.compressed or not self.chunks[i].run:
            return same_unit(&self.chunks[i].place, &self.chunks[j].place)
        return self.chunks[i].run == self.chunks[j].run

    cdef int store_run(self, uint32_t start, uint32_t end) except? -1:
        """Write the chunks [start, end), which lie in one buffer as in the cache file."""
        cdef const ChunkPlace *first = &self.chunks[start].place
        cdef const ChunkPlace *last = &self.chunks[end - 1].place
        return self.store(
            start, end, first.uncompressed_offset, self.chunks[start].plain,
            last.uncompressed_offset - first.uncompressed_offset + last.uncompressed_size)

    cdef int store_stored(self, uint32_t start, uint32_t end) except? -1:
        """Write the stored bytes of the chunks [start, end), which are of one unit."""
        cdef const ChunkPlace *unit = &self.chunks[start].place
        return self.store(start, end, unit.compressed_offset,
                          self.stored_bytes(&self.chunks[start]), unit.compressed_size)

    cdef int store_staged(self, uint32_t start, uint32_t end) except? -1:
        """Write the chunks [start, end) of a shared unit, put side by side first where they fit."""
        cdef bytearray staging = PyByteArray_FromStringAndSize(NULL, 0)
        cdef uint32_t last
        cdef int rc = 0
        while start < end and rc == 0:
            last = start + 1
            while (last < end and self.adjoins(last)
                    and self.chunks[last].place.uncompressed_offset
                    - self.chunks[start].place.uncompressed_offset
                    + self.chunks[last].place.uncompressed_size <= STAGING_BYTES):
                last += 1
            if last - start > 1:
                self.stage(start, last, staging)
                rc = self.store(start, last, self.chunks[start].place.uncompressed_offset,
                                <const uint8_t *>PyByteArray_AS_STRING(staging), len(staging))
            else:
                rc = self.store_run(start, last)
            start = last
        return rc

    cdef int stage(self, uint32_t start, uint32_t end, bytearray staging) except -1:
        """Fill *staging* with the chunks [start, end) as they lie in the cache file."""
        cdef uint64_t base = self.chunks[start].place.uncompressed_offset
        cdef uint64_t filled = 0
        cdef uint64_t at
        cdef uint8_t *target
        cdef uint32_t i
        PyByteArray_Resize(staging, self.chunks[end - 1].place.uncompressed_offset - base
                           + self.chunks[end - 1].place.uncompressed_size)
        target = <uint8_t *>PyByteArray_AS_STRING(staging)
        for i in range(start, end):
            at = self.chunks[i].place.uncompressed_offset - base
            memset(target + filled, 0, at - filled)
            memcpy(target + at, self.chunks[i].plain, self.chunks[i].place.uncompressed_size)
            filled = at + self.chunks[i].place.uncompressed_size
        return 0

    cdef int store(self, uint32_t start, uint32_t end, uint64_t offset, const uint8_t *data,
                   uint64_t size) except? -1:
        """Write the *size* bytes that are the chunks [start, end), then set their bits."""
        cdef uint32_t i
        cdef int rc
        cdef bytearray sealed
        if self.blob.pages is not None:
            sealed = self.blob.pages.seal(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
            data = <const uint8_t *>PyByteArray_AS_STRING(sealed)
            size = len(sealed)
        with nogil:
            if self.blob.fresh is None:
                rc = self.blob.file.store(offset, data, size)
            else:
                rc = self.store_vouched(start, end, offset, data, size)
        if rc == -ENODATA:
            self.blob.lose_file()
        if rc != 0:
            return rc
        for i in range(start, end):
            self.blob.note_use(self.chunks[i].index, &self.chunks[i].place)
            self.blob.chunks.set_ready(self.chunks[i].index)    # data before bit
            self.chunks[i].state |= CHUNK_KEPT
        self.blob.counters.add(COUNT_KEPT_BYTES, size)
        self.blob.counters.add(COUNT_KEPT_CHUNKS, end - start)
        return 0

    cdef int store_vouched(self, uint32_t start, uint32_t end, uint64_t offset,
                           const uint8_t *data, uint64_t size) noexcept nogil:
        """Write them to a file of which `fresh` tells what was checked a moment ago."""
        cdef int number = self.blob.fresh.begin_write(offset, size)
        cdef int rc = self.blob.file.store(offset, data, size)
        cdef uint32_t i
        if rc == 0:
            for i in range(start, end):
                self.blob.fresh.vouch(
                    number, self.chunks[i].index, &self.chunks[i].place, self.chunks[i].digest)
        self.blob.fresh.end_write(number)
        return rc

    cdef const uint8_t *stored_bytes(self, const Chunk *chunk) except NULL:
        cdef uint32_t i
        for i in range(self.range_count):
            if (chunk.place.compressed_offset >= self.ranges[i].offset
                    and chunk.place.compressed_offset - self.ranges[i].offset
                    + chunk.place.compressed_size <= self.ranges[i].size):
                return (<const uint8_t *>PyByteArray_AS_STRING(self.stored[i])
                        + (chunk.place.compressed_offset - self.ranges[i].offset))
        raise AssertionError("a decoded chunk is in no range")

    cdef void release(self) noexcept nogil:
        cdef uint32_t i
        cdef bint any_released = False
        for i in range(self.count):
            if self.chunks[i].state & CHUNK_MINE:
                self.chunks[i].state &= ~<uint32_t>CHUNK_MINE
                self.blob.chunks.release(self.chunks[i].index)
                any_released = True
        if any_released:
            self.blob.chunks.wake()

    cdef uint64_t drop(self) except? 0:
        cdef uint64_t size = 0
        cdef uint32_t i
        for i in range(self.range_count):
            size += self.ranges[i].size
            self.blob.buffered -= self.ranges[i].size
            if not self.stored_elsewhere:
                give_buffer(self.stored[i])
        self.count = self.range_count = 0
        self.stored.clear()
        self.decoder.drop()
        if self.entered:
            self.entered = False
            self.blob.leave()
        return size
