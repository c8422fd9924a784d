"""Getting the missing chunks of one blob: claim, one backend read a range, decode, check, keep.

`Device.fetch` puts these steps together for a read, `cache.prefetch` for the background: whatever
a reader waits for is decoded and answered first, then comes what was brought along, then the
cache file. Runs with the GIL on a thread that may wait; backend, decompression and disk give it
up. One `Fetch` belongs to one thread and ends with `release` and `drop`, whatever
happened.
"""

import logging

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport ENODATA
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

cimport cython

from nydusd.cache.cached_blob cimport (
    COUNT_BACKEND_BYTES, COUNT_CORRUPT, COUNT_KEPT_BYTES, COUNT_PREFETCH_BYTES,
    COUNT_PREFETCH_REQUESTS, COUNT_REQUESTS, CachedBlob,
)
from nydusd.cache.plan cimport (
    CHUNK_BAD, CHUNK_KEPT, CHUNK_MINE, CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_READY, CHUNK_WANTED, Chunk,
    Range, gap_limit, merge_ranges, range_limit, sort_chunks,
)
from nydusd.codec.compression cimport COMPRESSOR_NONE, Piece, decompress_pieces
from nydusd.codec.digest cimport crc32c
from nydusd.rafs.blobmeta cimport ChunkPlace
from nydusd.rafs.bootstrap cimport CHUNK_COMPRESSED, CHUNK_HAS_CRC, ChunkSpan

from nydusd.base.errors import BackendError, ChunkCorrupt
from nydusd.codec.digest import digest_of as compute_digest
from nydusd.rafs.blobs import BlobFeature


cdef extern from "<Python.h>":
    int PyBUF_READ

cdef extern from "<malloc.h>" nogil:
    int malloc_trim(size_t)
    int mallopt(int, int)
    int M_ARENA_MAX

cdef enum:
    DIGEST_BYTES = 32
    PAGE_BYTES = 4096
    CHUNKS_MAX = 4096       # brought along by one fetch
    # Plain bytes of what is brought along, in batches: bounds memory when chunks shrink well.
    PLAIN_BATCHES = 2
    # malloc keeps what large buffers leave behind: 11 MiB after four threads have fetched 300 MiB.
    # Mapping every buffer anew (M_MMAP_THRESHOLD) costs half as much CPU again; one heap for all
    # threads (they hold the GIL when they allocate) that is trimmed after a MiB, when nobody else
    # fetches, costs nothing that can be measured and leaves 4.
    GIVE_BACK_BYTES = 1 << 20

logger = logging.getLogger("nydusd")
mallopt(M_ARENA_MAX, 1)     # heaps of other threads cannot be trimmed; see GIVE_BACK_BYTES


# Fetched since memory was given back; guarded by the GIL.
cdef uint64_t fetched_bytes = 0


cdef void give_back_memory(uint64_t size, int busy) noexcept:
    global fetched_bytes
    fetched_bytes += size
    if fetched_bytes >= GIVE_BACK_BYTES and busy == 0:
        fetched_bytes = 0
        malloc_trim(0)


cdef void open_window(Window *window, const ChunkPlace *place,
                      uint64_t batch_size) noexcept nogil:
    window.batch_size = batch_size
    window.plain = 0
    window.start = place.compressed_offset
    window.end = place.compressed_offset
    widen_window(window, place)


cdef void widen_window(Window *window, const ChunkPlace *place) noexcept nogil:
    cdef uint64_t end = place.compressed_offset + place.compressed_size
    if end > window.end:
        window.end = end
    window.plain += (place.uncompressed_size + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1)


cdef bint in_window(const Window *window, const ChunkPlace *place) noexcept nogil:
    if place.compressed_offset < window.start:
        return False
    if (place.compressed_offset > window.end
            and place.compressed_offset - window.end > gap_limit(window.batch_size)):
        return False
    return (place.compressed_offset - window.start + place.compressed_size
            <= range_limit(window.batch_size)
            and window.plain <= PLAIN_BATCHES * window.batch_size)


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
        self.buffers = []
        self.reasons = {}
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
        chunk.digest = self.digest_of(index, digest)
        chunk.state = state
        self.count += 1
        return chunk

    cdef const uint8_t *digest_of(self, uint32_t index, const uint8_t *own) noexcept nogil:
        """The digest to hold chunk *index* against: its bootstrap's, else the digest table's."""
        if own != NULL or self.blob.digest_table == NULL:
            return own
        return self.blob.digest_table + <uint64_t>index * DIGEST_BYTES

    cdef int need(self, const ChunkSpan *span) except -1:
        cdef ChunkPlace place
        cdef int rc
        self.blob.need_description()
        rc = self.blob.place(span, &place)
        if rc != 0:
            raise ChunkCorrupt(self.blob.info.blob_id, span.chunk_index,
                               "its place in the bootstrap and in the blob do not agree")
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

    # --- what is on local disk

    cdef int look_up(self) except -1:
        cdef uint32_t i
        for i in range(self.count):
            if not self.from_cache(&self.chunks[i]):
                self.missing += 1
        return 0

    cdef bint from_cache(self, Chunk *chunk) except -1:
        """Whether the cache file answers for *chunk*; checked where that is due."""
        cdef bint ready
        if self.blob.file is None:
            return False
        ready = self.blob.chunks.is_ready(chunk.index)
        if ready and self.blob.direct:
            chunk.state |= CHUNK_READY
            return True
        if not ready and not (self.blob.recheck and chunk.digest != NULL):
            return False
        if not self.load(chunk):
            return False
        self.blob.chunks.set_ready(chunk.index)
        return True

    cdef bint load(self, Chunk *chunk) except -1:
        """Read *chunk* from the cache file, decode and check it; false when it is no good."""
        cdef bint stored = self.blob.compressed
        cdef uint64_t size = (chunk.place.compressed_size if stored
                              else chunk.place.uncompressed_size)
        cdef uint64_t offset = (chunk.place.compressed_offset if stored
                                else chunk.place.uncompressed_offset)
        cdef bytearray raw = PyByteArray_FromStringAndSize(NULL, size)
        cdef bytearray plain = raw
        cdef uint8_t *target = <uint8_t *>PyByteArray_AS_STRING(raw)
        cdef Piece piece
        cdef int rc
        with nogil:
            rc = self.blob.file.load(offset, target, size)
        if rc != 0:
            if rc == -ENODATA and not self.blob.recheck:
                self.blob.lose_file()
            return False
        if stored:
            plain = PyByteArray_FromStringAndSize(NULL, chunk.place.uncompressed_size)
            piece.stored = target
            piece.stored_size = size
            piece.plain = <uint8_t *>PyByteArray_AS_STRING(plain)
            piece.plain_size = chunk.place.uncompressed_size
            piece.result = 0
            decompress_pieces(self.blob.info.compressor if chunk.place.flags & CHUNK_COMPRESSED
                              else COMPRESSOR_NONE, &piece, 1)
            if piece.result != 0:
                return False
        chunk.plain = <uint8_t *>PyByteArray_AS_STRING(plain)
        self.check(chunk)
        if chunk.state & CHUNK_BAD:
            chunk.state &= ~<uint32_t>CHUNK_BAD
            chunk.plain = NULL
            return False
        chunk.state |= CHUNK_PLAIN
        self.buffers.append(plain)
        return True

    # --- claims

    cdef int claim(self, bint regardless) except -1:
        cdef uint32_t i
        cdef Chunk *chunk
        for i in range(self.count):
            chunk = &self.chunks[i]
            if chunk.state & (CHUNK_READY | CHUNK_PLAIN | CHUNK_WANTED):
                continue
            if self.blob.file is None:
                chunk.state |= CHUNK_WANTED
            elif self.blob.chunks.claim(chunk.index):
                chunk.state |= CHUNK_MINE
                # Somebody may have ended a fetch of it between our look and our claim.
                if self.blob.chunks.is_ready(chunk.index) and self.from_cache(chunk):
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
        if self.blob.chunks.is_ready(index) or not self.blob.chunks.claim(index):
            return False
        if self.blob.chunks.is_ready(index):
            self.blob.chunks.release(index)
            return False
        self.add(index, place, digest, CHUNK_MINE | CHUNK_WANTED)
        return True

    cdef int bring_along(self, uint64_t batch_size, const ChunkSpan *following,
                         uint32_t following_count) except -1:
        cdef uint32_t needed = self.count
        cdef uint32_t index
        cdef uint32_t at = 0
        cdef uint32_t next_needed
        cdef ChunkPlace place
        cdef Window window
        if batch_size == 0 or not self.blob.is_keeping():
            return 0
        next_needed = 0
        while next_needed < needed:
            if not self.chunks[next_needed].state & CHUNK_WANTED:
                next_needed += 1
                continue
            open_window(&window, &self.chunks[next_needed].place, batch_size)
            index = self.chunks[next_needed].index
            next_needed += 1
            at = 0
            while (self.blob.meta is None and next_needed < needed
                    and self.chunks[next_needed].state & CHUNK_WANTED
                    and in_window(&window, &self.chunks[next_needed].place)):
                widen_window(&window, &self.chunks[next_needed].place)
                next_needed += 1
            while self.count - needed < CHUNKS_MAX:
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
        self.sort()
        return 0

    # --- from the backend

    cdef int get(self, uint64_t batch_size) except -1:
        cdef Range *wanted = <Range *>calloc(self.count or 1, sizeof(Range))
        cdef uint32_t count
        cdef uint32_t i
        if wanted == NULL:
            raise MemoryError
        try:
            count = merge_ranges(self.chunks, self.count, batch_size, wanted)
            for i in range(count):
                self.get_range(&wanted[i])
        finally:
            free(wanted)
        for i in range(self.range_count):
            self.decode(i, True)
        return self.raise_bad()

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
        except BackendError:
            if needed == 0 or others == 0:
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
        cdef Range *grown
        cdef bytearray raw = PyByteArray_FromStringAndSize(NULL, wanted.size)
        self.blob.counters.add(COUNT_REQUESTS, 1)
        self.blob.counters.add(COUNT_BACKEND_BYTES, wanted.size)
        if self.prefetching:
            self.blob.counters.add(COUNT_PREFETCH_REQUESTS, 1)
            self.blob.counters.add(COUNT_PREFETCH_BYTES, wanted.size)
        self.blob.reader.read_into(raw, wanted.offset)
        grown = <Range *>realloc(self.ranges, (self.range_count + 1) * sizeof(Range))
        if grown == NULL:
            raise MemoryError
        self.ranges = grown
        self.ranges[self.range_count] = wanted[0]
        self.range_count += 1
        self.stored.append(raw)
        return self.lay_out(wanted)

    cdef int lay_out(self, const Range *wanted) except -1:
        """Give the wanted chunks of a range room, in runs that lie as in the cache file."""
        cdef uint32_t start = wanted.first
        cdef uint32_t limit = wanted.first + wanted.count
        cdef uint32_t end
        while start < limit:
            if not self.is_pending(start):
                start += 1
                continue
            end = start + 1
            while end < limit and self.is_pending(end) and self.adjoins(end):
                end += 1
            self.place_run(start, end)
            start = end
        return 0

    cdef bint is_pending(self, uint32_t i) noexcept nogil:
        return self.chunks[i].state & CHUNK_WANTED and self.chunks[i].plain == NULL

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
        cdef bytearray plain = PyByteArray_FromStringAndSize(
            NULL, last.uncompressed_offset - first.uncompressed_offset + last.uncompressed_size)
        cdef uint8_t *base = <uint8_t *>PyByteArray_AS_STRING(plain)
        cdef uint64_t at
        cdef uint64_t filled = 0
        cdef uint32_t i
        self.buffers.append(plain)
        self.runs += 1
        for i in range(start, end):
            at = self.chunks[i].place.uncompressed_offset - first.uncompressed_offset
            memset(base + filled, 0, at - filled)
            self.chunks[i].plain = base + at
            self.chunks[i].run = self.runs
            filled = at + self.chunks[i].place.uncompressed_size
        return 0

    # --- plain bytes

    cdef int decode_rest(self) except -1:
        cdef uint32_t i
        for i in range(self.range_count):
            self.decode(i, False)
        return 0

    cdef int decode(self, uint32_t which, bint needed) except -1:
        """Decode and check the chunks of range *which* that are *needed*, or the others."""
        cdef Range *source = &self.ranges[which]
        cdef Piece *pieces = <Piece *>calloc(source.count, sizeof(Piece))
        cdef uint32_t *owners = <uint32_t *>calloc(source.count, sizeof(uint32_t))
        cdef uint32_t n
        cdef uint32_t i
        try:
            if pieces == NULL or owners == NULL:
                raise MemoryError
            n = self.split(which, needed, pieces, owners)
            decompress_pieces(self.blob.info.compressor, pieces, n)
            for i in range(n):
                if pieces[i].result != 0:
                    self.mark_bad(&self.chunks[owners[i]], "its stored bytes do not decode")
            for i in range(source.first, source.first + source.count):
                if self.is_due(i, needed):
                    self.check(&self.chunks[i])
        finally:
            free(pieces)
            free(owners)
        return 0

    cdef bint is_due(self, uint32_t i, bint needed) noexcept nogil:
        cdef const Chunk *chunk = &self.chunks[i]
        if chunk.plain == NULL or chunk.state & (CHUNK_PLAIN | CHUNK_BAD):
            return False
        return chunk.state & CHUNK_WANTED and (chunk.state & CHUNK_NEEDED != 0) == needed

    cdef uint32_t split(self, uint32_t which, bint needed, Piece *pieces,
                        uint32_t *owners) except? 0xffffffff:
        """The compressed chunks of a range as *pieces*; those stored plain are copied here."""
        cdef const Range *source = &self.ranges[which]
        cdef const uint8_t *raw = <const uint8_t *>PyByteArray_AS_STRING(self.stored[which])
        cdef Chunk *chunk
        cdef uint32_t i
        cdef uint32_t n = 0
        for i in range(source.first, source.first + source.count):
            if not self.is_due(i, needed):
                continue
            chunk = &self.chunks[i]
            if chunk.place.flags & CHUNK_COMPRESSED:
                pieces[n].stored = raw + (chunk.place.compressed_offset - source.offset)
                pieces[n].stored_size = chunk.place.compressed_size
                pieces[n].plain = chunk.plain
                pieces[n].plain_size = chunk.place.uncompressed_size
                owners[n] = i
                n += 1
            elif chunk.place.compressed_size != chunk.place.uncompressed_size:
                self.mark_bad(chunk, "stored plain, in another size than its own")
            else:
                with nogil:
                    memcpy(chunk.plain, raw + (chunk.place.compressed_offset - source.offset),
                           chunk.place.uncompressed_size)
        return n

    cdef int check(self, Chunk *chunk) except -1:
        """PLAIN when the bytes are those that the image promises, else BAD."""
        cdef uint32_t crc
        if chunk.state & CHUNK_BAD:
            return 0
        if chunk.place.flags & CHUNK_HAS_CRC:
            with nogil:
                crc = crc32c(0, chunk.plain, chunk.place.uncompressed_size)
            if crc != chunk.place.crc32:
                return self.mark_bad(chunk, "its CRC-32C is not the promised one")
        if (self.blob.validate or self.blob.recheck) and chunk.digest != NULL:
            digest = compute_digest(self.blob.info.digester, PyMemoryView_FromMemory(
                <char *>chunk.plain, chunk.place.uncompressed_size, PyBUF_READ))
            if memcmp(<const char *>(<bytes>digest), chunk.digest, DIGEST_BYTES) != 0:
                return self.mark_bad(chunk, "its digest is not the promised one")
        chunk.state |= CHUNK_PLAIN
        return 0

    cdef int mark_bad(self, Chunk *chunk, str reason) except -1:
        chunk.state |= CHUNK_BAD
        self.reasons[chunk.index] = reason
        self.blob.counters.add(COUNT_CORRUPT, 1)
        return 0

    cdef int raise_bad(self) except -1:
        """`ChunkCorrupt` for the first needed chunk that is bad."""
        cdef uint32_t i
        for i in range(self.count):
            if self.chunks[i].state & CHUNK_NEEDED and self.chunks[i].state & CHUNK_BAD:
                raise ChunkCorrupt(self.blob.info.blob_id, self.chunks[i].index,
                                   self.reasons[self.chunks[i].index])
        return 0

    # --- to the cache file

    cdef bint is_keepable(self, uint32_t i) noexcept nogil:
        return (self.chunks[i].state & (CHUNK_WANTED | CHUNK_PLAIN | CHUNK_KEPT)
                == CHUNK_WANTED | CHUNK_PLAIN)

    cdef bint keep(self) except -1:
        cdef uint32_t i = 0
        cdef uint32_t end
        cdef bint all_kept = True
        cdef int rc
        if self.blob.file is None:
            return False
        while i < self.count:
            if not self.is_keepable(i):
                if self.chunks[i].state & (CHUNK_WANTED | CHUNK_NEEDED | CHUNK_KEPT) == (
                        CHUNK_WANTED | CHUNK_NEEDED):
                    all_kept = False
                i += 1
                continue
            end = i + 1
            while (end < self.count and not self.blob.compressed and self.is_keepable(end)
                    and self.chunks[end].run == self.chunks[i].run):
                end += 1
            rc = self.store_run(i, end)
            self.blob.disk_refuses = rc != 0
            if rc != 0:
                all_kept = False
                if self.blob.file.keeps:
                    self.blob.note_disk(rc)
            i = end
        return all_kept

    cdef int store_run(self, uint32_t start, uint32_t end) except? -1:
        """Write the chunks [start, end), which lie in one buffer, then set their bits."""
        cdef const ChunkPlace *first = &self.chunks[start].place
        cdef const ChunkPlace *last = &self.chunks[end - 1].place
        cdef const uint8_t *data = self.chunks[start].plain
        cdef uint64_t offset = first.uncompressed_offset
        cdef uint64_t size = last.uncompressed_offset - offset + last.uncompressed_size
        cdef uint32_t i
        cdef int rc
        if self.blob.compressed:
            data = self.stored_bytes(&self.chunks[start])
            offset = first.compressed_offset
            size = first.compressed_size
        with nogil:
            rc = self.blob.file.store(offset, data, size)
        if rc != 0:
            return rc
        for i in range(start, end):
            self.blob.chunks.set_ready(self.chunks[i].index)    # data before bit
            self.chunks[i].state |= CHUNK_KEPT
        self.blob.counters.add(COUNT_KEPT_BYTES, size)
        return 0

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
        self.count = self.range_count = 0
        self.buffers.clear()
        self.stored.clear()
        if self.entered:
            self.entered = False
            self.blob.leave()
        return size
