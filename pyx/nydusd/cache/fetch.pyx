"""Getting the missing chunks of one blob: one backend read a range, decoded and checked.

`Device.fetch` puts the steps together for a read, `cache.prefetch` for the background: chunks are
claimed (`cache.claims`), neighbours brought along (`cache.neighbours`); what a reader waits for is
had, decoded (`cache.decode`) and answered first; then the rest is decoded and all of it written to
the cache file (`cache.keep`). Chunks that share a stored unit (rafs/blobmeta.pxd) are fetched and
decoded together. Runs with the GIL on a thread that may wait; backend and decompression give it up.
One `Fetch` belongs to one thread and ends with `drop`, whatever happened.
"""

import logging

from cpython.bytearray cimport PyByteArray_AS_STRING
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memset

cimport cython

from nydusd.cache.cached_blob cimport (
    COUNT_BACKEND_BYTES, COUNT_PREFETCH_BYTES, COUNT_PREFETCH_CHUNKS, COUNT_PREFETCH_REQUESTS,
    COUNT_REQUESTS, CachedBlob,
)
from nydusd.cache.claims cimport Claims
from nydusd.cache.decode cimport Decoder
from nydusd.cache.heap cimport give_buffer, take_buffer
from nydusd.cache.plan cimport (
    CHUNK_BAD, CHUNK_HAD, CHUNK_NEEDED, CHUNK_WANTED, Chunk, Range, adjoins, is_in_hand,
    merge_ranges,
)
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, CHUNK_ZRAN, ChunkPlace

from nydusd.base.errors import BackendError, BlobCorrupt, ChunkCorrupt, FailureKind
from nydusd.rafs.blobs import BlobFeature

# Failures that may be those of the range: a stretch that cannot be read, the blob's end in it.
RANGE_FAILURES = (FailureKind.OTHER, FailureKind.SHORT, FailureKind.LONG, FailureKind.RANGE)
STATUS_NOT_SATISFIABLE = 416
logger = logging.getLogger("nydusd")


cdef bint is_same_place(const ChunkPlace *a, const ChunkPlace *b) noexcept nogil:
    return (a.compressed_offset == b.compressed_offset and a.compressed_size == b.compressed_size
            and a.uncompressed_size == b.uncompressed_size and a.flags == b.flags
            and a.crc32 == b.crc32 and a.context_index == b.context_index
            and a.context_offset == b.context_offset and a.context_size == b.context_size)


cdef bint needs_room(const Chunk *chunk, uint32_t state) noexcept nogil:
    """Whether *chunk* was had, is in *state*, and has nowhere to be decoded to yet."""
    return (is_in_hand(chunk) and chunk.state & state == state and chunk.plain == NULL
            and not chunk.place.flags & CHUNK_SHARES_UNIT)


@cython.final
cdef class Fetch:
    """One fetch from *blob*; *prefetching* when nobody waits for it."""

    def __cinit__(self, CachedBlob blob, bint prefetching=False):
        self.blob = blob
        self.ranges = NULL
        self.range_count = self.runs = 0
        self.stored = []
        self.stored_elsewhere = False
        self.decoder = Decoder(blob)
        self.claims = Claims(blob, self.decoder)
        self.aligned = BlobFeature.ALIGNED in blob.info.features
        self.prefetching = prefetching
        self.entered = False
        blob.enter()
        self.entered = True

    def __dealloc__(self):
        free(self.ranges)

    cdef int get(self, uint64_t batch_size) except -1:
        cdef Range *wanted = <Range *>calloc(self.claims.count or 1, sizeof(Range))
        cdef uint32_t had = self.range_count
        cdef uint32_t count
        cdef uint32_t i
        if wanted == NULL:
            raise MemoryError
        try:
            self.decoder.reserve(self.claims.chunks, self.claims.count)
            count = merge_ranges(self.claims.chunks, self.claims.count, batch_size, wanted)
            for i in range(count):
                self.get_range(&wanted[i])
        finally:
            free(wanted)
        self.decode_needed(had)
        try:
            return self.decoder.raise_bad(self.claims.chunks, self.claims.count)
        except ChunkCorrupt as exc:
            exc.elsewhere = self.distrust_bad() or self.renew_table()
            raise

    cdef int get_range(self, const Range *wanted) except -1:
        """Have one range; when it fails with what was brought along, try without."""
        cdef const Chunk *chunks = self.claims.chunks
        cdef uint32_t i
        cdef uint32_t needed = 0
        cdef uint32_t others = 0
        for i in range(wanted.first, wanted.first + wanted.count):
            if chunks[i].state & (CHUNK_WANTED | CHUNK_HAD) == CHUNK_WANTED:
                if chunks[i].state & CHUNK_NEEDED:
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
                if not self.claims.chunks[i].state & CHUNK_NEEDED:
                    self.claims.chunks[i].state &= ~<uint32_t>CHUNK_WANTED
            n = merge_ranges(self.claims.chunks + first, count, 0, wanted)
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
        whole.count = self.claims.count
        return self.take_range(&whole, stored)

    cdef uint32_t wanted_in(self, const Range *wanted) noexcept nogil:
        cdef uint32_t found = 0
        cdef uint32_t i
        for i in range(wanted.first, wanted.first + wanted.count):
            if self.claims.chunks[i].state & CHUNK_WANTED:
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
            if self.claims.chunks[i].state & CHUNK_WANTED:
                self.claims.chunks[i].state |= CHUNK_HAD
        return 0

    # --- decoding

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
            self.claims.chunks + first, count,
            <const uint8_t *>PyByteArray_AS_STRING(self.stored[i]), self.ranges[i].offset, needed)

    cdef int lay_out(self, uint32_t start, uint32_t count, uint32_t state) except -1:
        """Give *count* chunks that were had and are in *state* room.

        It is in runs that lie as in the cache file. Chunks of a shared unit get theirs when it is
        decoded.
        """
        cdef const Chunk *chunks = self.claims.chunks
        cdef uint32_t limit = start + count
        cdef uint32_t end
        while start < limit:
            if not needs_room(&chunks[start], state):
                start += 1
                continue
            end = start + 1
            while (end < limit and needs_room(&chunks[end], state)
                    and adjoins(&chunks[end - 1], &chunks[end], self.aligned)):
                end += 1
            self.place_run(start, end)
            start = end
        return 0

    cdef int place_run(self, uint32_t start, uint32_t end) except -1:
        """One buffer for the chunks [start, end); gaps between them are zero."""
        cdef Chunk *chunks = self.claims.chunks
        cdef const ChunkPlace *first = &chunks[start].place
        cdef const ChunkPlace *last = &chunks[end - 1].place
        cdef bytearray plain = take_buffer(
            last.uncompressed_offset - first.uncompressed_offset + last.uncompressed_size)
        cdef uint8_t *base = <uint8_t *>PyByteArray_AS_STRING(plain)
        cdef uint64_t at
        cdef uint64_t filled = 0
        cdef uint32_t i
        self.decoder.buffers.append(plain)
        self.runs += 1
        for i in range(start, end):
            at = chunks[i].place.uncompressed_offset - first.uncompressed_offset
            memset(base + filled, 0, at - filled)
            chunks[i].plain = base + at
            chunks[i].run = self.runs
            filled = at + chunks[i].place.uncompressed_size
        return 0

    # --- what was corrupt

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
        for i in range(self.claims.count):
            if self.claims.chunks[i].state & CHUNK_BAD and (
                    self.blob.meta.chunk(self.claims.chunks[i].index, &place) != 0
                    or place.flags & CHUNK_ZRAN     # its dictionary is in the table as well
                    or not is_same_place(&place, &self.claims.chunks[i].place)):
                return True
        return False

    cdef bint distrust_bad(self) except -1:
        """Tell the backend which ranges were corrupt; whether it has another source for them."""
        cdef uint32_t i
        cdef uint32_t c
        cdef bint elsewhere = False
        for i in range(self.range_count):
            for c in range(self.ranges[i].first, self.ranges[i].first + self.ranges[i].count):
                if self.claims.chunks[c].state & CHUNK_BAD:
                    if self.blob.reader.distrust(self.ranges[i].offset, self.ranges[i].size):
                        elsewhere = True
                    break
        return elsewhere

    # --- the end

    cdef uint64_t drop(self) except? 0:
        cdef uint64_t size = 0
        cdef uint32_t i
        self.claims.release()
        for i in range(self.range_count):
            size += self.ranges[i].size
            self.blob.buffered -= self.ranges[i].size
            if not self.stored_elsewhere:
                give_buffer(self.stored[i])
        self.claims.count = self.range_count = 0
        self.stored.clear()
        self.decoder.drop()
        if self.entered:
            self.entered = False
            self.blob.leave()
        return size
