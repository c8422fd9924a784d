"""Stored bytes of chunks, from a backend or the cache file, to checked plain bytes.

One `Decoder` belongs to one fetch and its thread, and owns the buffers that its chunks point into.
It knows units, compressors, checksums and digests; which chunks are claimed, had and kept is for
`cache.claims`, `cache.fetch` and `cache.keep` to say. Runs with the GIL, which the heavy calls give
up.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

cimport cython

from nydusd.cache.allowance cimport give_back, take
from nydusd.cache.cached_blob cimport COUNT_CORRUPT, CachedBlob
from nydusd.cache.plan cimport (
    CHUNK_BAD, CHUNK_DECODED, CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_READY, CHUNK_WANTED, Chunk, unit_end,
)
from nydusd.cache.recent_units cimport find, remember
from nydusd.cache.unit cimport StoredUnit, decode_encrypted, decode_unit
from nydusd.codec.compression cimport Piece, decompress_pieces
from nydusd.codec.digest cimport crc32c
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT
from nydusd.rafs.bootstrap cimport CHUNK_COMPRESSED, CHUNK_ENCRYPTED, CHUNK_HAS_CRC

from nydusd.base.errors import ChunkCorrupt
from nydusd.codec.digest import digest_of as compute_digest


cdef extern from "<Python.h>":
    int PyBUF_READ

cdef enum:
    DIGEST_BYTES = 32
    # Where reads are not answered straight from the file: a chunk of 1 MiB is read in eight parts
    # (the kernel's readahead), and was decoded or checked for each.
    LARGE_BYTES = 1 << 17
    PAGE_BYTES = 4096       # units of an encrypted cache file
    # A unit's plain bytes stay whole while its chunks are in use, unless these are less of it than
    # one part in so many: then they are copied, so that what a read holds follows what it asks for.
    HELD_WHOLE = 4
    # What was checked when a large chunk was remembered follows its bytes: stored offset, digest.
    # Of v5 images each tells itself what chunk *n* of a blob is, and another one may lie.
    PLACE_BYTES = 8
    CLAIM_BYTES = PLACE_BYTES + DIGEST_BYTES


cdef bint is_due(const Chunk *chunk, bint needed) noexcept nogil:
    """Whether *chunk* was had from the backend, is *needed* (or not), and is not decoded yet."""
    return (chunk.state & (CHUNK_WANTED | CHUNK_PLAIN | CHUNK_BAD | CHUNK_DECODED) == CHUNK_WANTED
            and (chunk.state & CHUNK_NEEDED != 0) == needed)


cdef void write_claim(const Chunk *chunk, uint8_t *out) noexcept nogil:
    """What the image promises of *chunk*, in CLAIM_BYTES."""
    memcpy(out, &chunk.place.compressed_offset, PLACE_BYTES)
    memset(out + PLACE_BYTES, 0, DIGEST_BYTES)
    if chunk.digest != NULL:
        memcpy(out + PLACE_BYTES, chunk.digest, DIGEST_BYTES)


@cython.final
cdef class Decoder:
    """What one fetch from *blob* decodes with, and into."""

    def __cinit__(self, CachedBlob blob):
        self.blob = blob
        self.buffers = []
        self.reasons = {}

    # --- memory

    cdef int reserve(self, const Chunk *chunks, uint32_t count) except -1:
        cdef uint64_t size = 0
        cdef uint32_t start = 0
        cdef uint32_t end
        cdef uint32_t i
        while start < count:
            end = unit_end(chunks, count, start)
            if chunks[start].place.flags & CHUNK_SHARES_UNIT:
                for i in range(start, end):
                    if is_due(&chunks[i], True) or is_due(&chunks[i], False):
                        size += chunks[i].place.compressed_size + chunks[i].place.context_size
                        break
            start = end
        if size:
            take(size)
            self.allowed += size
        return 0

    cdef int drop(self) except -1:
        cdef uint64_t allowed = self.allowed
        self.buffers.clear()
        self.allowed = 0
        return give_back(allowed)

    # --- what is on local disk

    cdef uint32_t look_up(self, Chunk *chunks, uint32_t count) except? 0xffffffff:
        cdef uint32_t start = 0
        cdef uint32_t end
        cdef uint32_t i
        cdef uint32_t missing = 0
        while start < count:
            end = start + 1
            if self.keeps_no_plain():
                end = unit_end(chunks, count, start)
                if self.from_recent(chunks + start, end - start):
                    start = end
                    continue
            if self.is_large(&chunks[start]) and self.recall(&chunks[start]):
                pass
            elif self.blob.compressed:
                self.load_stored(chunks + start, end - start)
            elif self.blob.direct and self.blob.has(chunks[start].index, &chunks[start].place):
                chunks[start].state |= CHUNK_READY
            elif self.is_here(&chunks[start]):
                self.load(&chunks[start])
            for i in range(start, end):
                if chunks[i].state & CHUNK_PLAIN:
                    if self.blob.recheck:
                        self.blob.chunks.set_ready(chunks[i].index)
                elif not chunks[i].state & CHUNK_READY:
                    missing += 1
            start = end
        return missing

    cdef bint is_large(self, const Chunk *chunk) noexcept nogil:
        """Whether *chunk* will be asked for in parts, each of which would take the whole of it."""
        return (not self.blob.direct and not chunk.place.flags & CHUNK_SHARES_UNIT
                and chunk.place.uncompressed_size >= LARGE_BYTES)

    cdef bint recall(self, Chunk *chunk) except -1:
        """Whether *chunk* is among those that were decoded, and checked, last."""
        cdef uint8_t claim[CLAIM_BYTES]
        cdef uint64_t size = chunk.place.uncompressed_size
        cdef bytearray plain = find(self.blob.counters, chunk.index)
        if plain is None or <uint64_t>len(plain) != size + CLAIM_BYTES:
            return False
        write_claim(chunk, claim)
        if memcmp(PyByteArray_AS_STRING(plain) + size, claim, CLAIM_BYTES) != 0:
            return False
        self.buffers.append(plain)
        chunk.plain = <uint8_t *>PyByteArray_AS_STRING(plain)
        chunk.state |= CHUNK_PLAIN
        return True

    cdef int keep_at_hand(self, const Chunk *chunk) except -1:
        """Remember a large chunk that is needed and good, with bytes of its own."""
        cdef bytearray plain
        cdef uint8_t *target
        if chunk.state & (CHUNK_NEEDED | CHUNK_PLAIN) == CHUNK_NEEDED | CHUNK_PLAIN \
                and self.is_large(chunk) and find(self.blob.counters, chunk.index) is None:
            plain = PyByteArray_FromStringAndSize(
                NULL, chunk.place.uncompressed_size + CLAIM_BYTES)
            target = <uint8_t *>PyByteArray_AS_STRING(plain)
            memcpy(target, chunk.plain, chunk.place.uncompressed_size)
            write_claim(chunk, target + chunk.place.uncompressed_size)
            remember(self.blob.counters, chunk.index, plain)
        return 0

    cdef bint keeps_no_plain(self) noexcept nogil:
        return self.blob.file is None or self.blob.compressed

    cdef bint from_recent(self, Chunk *chunks, uint32_t count) except -1:
        """Whether all *chunks*, of one unit, could be had from those that were decoded lately."""
        cdef bytearray plain
        cdef bint all_plain = True
        cdef uint32_t i
        if not chunks[0].place.flags & CHUNK_SHARES_UNIT:
            return False
        plain = find(self.blob.lock, chunks[0].place.context_index)
        if plain is None or <uint64_t>len(plain) != chunks[0].place.context_size:
            return False        # a table that was renewed may tell another size
        self.buffers.append(plain)
        for i in range(count):
            chunks[i].plain = (<uint8_t *>PyByteArray_AS_STRING(plain)
                               + chunks[i].place.context_offset)
            self.check(&chunks[i])
            if chunks[i].state & CHUNK_BAD:
                chunks[i].state &= ~<uint32_t>CHUNK_BAD
                chunks[i].plain = NULL
                all_plain = False
        return all_plain

    cdef bint is_here(self, const Chunk *chunk) noexcept nogil:
        """Whether the cache file may have *chunk*: what no map tells, its digest will."""
        if not self.blob.keeps:
            return False
        return (self.blob.has(chunk.index, &chunk.place)
                or (self.blob.recheck and chunk.digest != NULL))

    cdef int load(self, Chunk *chunk) except -1:
        """Read *chunk* from a file of plain bytes, and check it: PLAIN, or as it was."""
        cdef uint64_t size = chunk.place.uncompressed_size
        cdef uint64_t seen = self.blob.evictions()
        cdef bytearray plain
        cdef uint8_t *target
        cdef int rc
        if self.blob.pages is not None:
            size = (size + PAGE_BYTES - 1) & ~<uint64_t>(PAGE_BYTES - 1)
        plain = PyByteArray_FromStringAndSize(NULL, size)
        target = <uint8_t *>PyByteArray_AS_STRING(plain)
        with nogil:
            rc = self.blob.file.load(chunk.place.uncompressed_offset, target, size)
        if rc != 0:
            if not self.blob.recheck:
                self.blob.lose_file()   # cut, or on a disk that does not give it back
            return 0
        if not self.blob.is_unmoved(chunk.index, seen):
            return 0
        if self.blob.pages is not None:
            plain = self.blob.pages.open(plain)
        chunk.plain = <uint8_t *>PyByteArray_AS_STRING(plain)
        self.check(chunk)
        if chunk.state & CHUNK_BAD:
            chunk.state &= ~<uint32_t>CHUNK_BAD
            chunk.plain = NULL
        else:
            self.buffers.append(plain)
            self.keep_at_hand(chunk)
        return 0

    cdef int load_stored(self, Chunk *chunks, uint32_t count) except -1:
        """Read one unit of *count* chunks from a file of stored bytes, decode and check it."""
        cdef bytearray stored
        cdef bytearray plain
        cdef uint8_t *target
        cdef uint64_t offset = chunks[0].place.compressed_offset
        cdef uint64_t size = chunks[0].place.compressed_size
        cdef uint64_t seen = self.blob.evictions()
        cdef uint32_t i
        cdef int rc
        cdef bint any_here = False
        for i in range(count):
            if self.is_here(&chunks[i]):
                any_here = True
        if not any_here:
            return 0
        if chunks[0].place.flags & CHUNK_SHARES_UNIT:
            size += chunks[0].place.context_size
            take(size)
            self.allowed += size
            size = chunks[0].place.compressed_size
        stored = PyByteArray_FromStringAndSize(NULL, size)
        target = <uint8_t *>PyByteArray_AS_STRING(stored)
        with nogil:
            rc = self.blob.file.load(offset, target, size)
        if rc != 0:
            if not self.blob.recheck:
                self.blob.lose_file()   # cut, or on a disk that does not give it back
            return 0
        if self.blob.evictions() != seen:
            return 0        # holes, maybe; what goes right now is not here any more, see below
        if not chunks[0].place.flags & CHUNK_SHARES_UNIT:
            plain = PyByteArray_FromStringAndSize(NULL, chunks[0].place.uncompressed_size)
            self.buffers.append(plain)
            chunks[0].plain = <uint8_t *>PyByteArray_AS_STRING(plain)
        for i in range(count):
            if self.is_here(&chunks[i]):
                chunks[i].state |= CHUNK_WANTED
        try:
            self.decode(chunks, count, target, offset, True)
            self.decode(chunks, count, target, offset, False)
        finally:
            for i in range(count):
                chunks[i].state &= ~<uint32_t>(CHUNK_WANTED | CHUNK_BAD | CHUNK_DECODED)
                if not chunks[i].state & CHUNK_PLAIN:
                    chunks[i].plain = NULL
        return 0

    # --- what was had from the backend

    cdef int decode(self, Chunk *chunks, uint32_t count, const uint8_t *stored, uint64_t offset,
                    bint needed) except -1:
        cdef uint32_t start = 0
        cdef uint32_t end
        cdef uint32_t i
        self.decode_pieces(chunks, count, stored, offset, needed)
        while start < count:
            end = unit_end(chunks, count, start)
            if chunks[start].place.flags & CHUNK_SHARES_UNIT:
                for i in range(start, end):
                    if is_due(&chunks[i], needed):
                        self.decode_shared(
                            chunks + start, end - start,
                            stored + (chunks[start].place.compressed_offset - offset))
                        break
            start = end
        for i in range(count):
            if (chunks[i].state & CHUNK_DECODED
                    and (chunks[i].state & CHUNK_NEEDED != 0) == needed):
                self.check(&chunks[i])
                if self.blob.fresh is None or self.blob.disk_refuses:
                    self.keep_at_hand(&chunks[i])
        return 0

    cdef int decode_pieces(self, Chunk *chunks, uint32_t count, const uint8_t *stored,
                           uint64_t offset, bint needed) except -1:
        """Decode the due chunks that are units of their own, in one call."""
        cdef Piece *pieces = <Piece *>calloc(count or 1, sizeof(Piece))
        cdef uint32_t *owners = <uint32_t *>calloc(count or 1, sizeof(uint32_t))
        cdef uint32_t n
        cdef uint32_t i
        try:
            if pieces == NULL or owners == NULL:
                raise MemoryError
            n = self.split(chunks, count, stored, offset, needed, pieces, owners)
            decompress_pieces(self.blob.info.compressor, pieces, n)
            for i in range(n):
                if pieces[i].result == 0:
                    chunks[owners[i]].state |= CHUNK_DECODED
                else:
                    self.mark_bad(&chunks[owners[i]], "its stored bytes do not decode")
        finally:
            free(pieces)
            free(owners)
        return 0

    cdef uint32_t split(self, Chunk *chunks, uint32_t count, const uint8_t *stored,
                        uint64_t offset, bint needed, Piece *pieces,
                        uint32_t *owners) except? 0xffffffff:
        """The compressed chunks that are due as *pieces*; those stored plain are copied here."""
        cdef Chunk *chunk
        cdef const uint8_t *source
        cdef uint32_t i
        cdef uint32_t n = 0
        for i in range(count):
            chunk = &chunks[i]
            if chunk.place.flags & CHUNK_SHARES_UNIT or not is_due(chunk, needed):
                continue
            source = stored + (chunk.place.compressed_offset - offset)
            if chunk.place.flags & CHUNK_ENCRYPTED:
                if not decode_encrypted(
                        self.blob, source, chunk.place.compressed_size, chunk.plain,
                        chunk.place.uncompressed_size,
                        chunk.place.flags & CHUNK_COMPRESSED != 0):
                    chunk.state |= CHUNK_DECODED
                else:
                    self.mark_bad(chunk, "its stored bytes do not decode")
            elif chunk.place.flags & CHUNK_COMPRESSED:
                pieces[n].stored = source
                pieces[n].stored_size = chunk.place.compressed_size
                pieces[n].plain = chunk.plain
                pieces[n].plain_size = chunk.place.uncompressed_size
                owners[n] = i
                n += 1
            elif chunk.place.compressed_size != chunk.place.uncompressed_size:
                self.mark_bad(chunk, "stored plain, in another size than its own")
            else:
                with nogil:
                    memcpy(chunk.plain, source, chunk.place.uncompressed_size)
                chunk.state |= CHUNK_DECODED
        return n

    cdef int decode_shared(self, Chunk *chunks, uint32_t count, const uint8_t *stored) except -1:
        """Decode the unit at *stored*, once for all of its *chunks* that are not decoded."""
        cdef bytearray plain = PyByteArray_FromStringAndSize(NULL, chunks[0].place.context_size)
        cdef StoredUnit unit
        cdef uint32_t i
        unit.stored = stored
        unit.stored_size = chunks[0].place.compressed_size
        unit.plain = <uint8_t *>PyByteArray_AS_STRING(plain)
        unit.plain_size = chunks[0].place.context_size
        unit.offset = chunks[0].place.compressed_offset
        unit.flags = chunks[0].place.flags
        unit.context_index = chunks[0].place.context_index
        if decode_unit(self.blob, &unit) == 0:
            if self.keeps_no_plain():
                remember(self.blob.lock, unit.context_index, plain)
            return self.give(chunks, count, plain)
        for i in range(count):
            if is_due(&chunks[i], True) or is_due(&chunks[i], False):
                self.mark_bad(&chunks[i], "the unit of chunks that it is part of does not decode")
        return 0

    cdef int give(self, Chunk *chunks, uint32_t count, bytearray plain) except -1:
        """Let the due *chunks* point into *plain*, their unit, or into a copy of their parts."""
        cdef bytearray parts
        cdef const uint8_t *base = <const uint8_t *>PyByteArray_AS_STRING(plain)
        cdef uint8_t *at = NULL
        cdef uint64_t size = 0
        cdef uint32_t i
        for i in range(count):
            if is_due(&chunks[i], True) or is_due(&chunks[i], False):
                size += chunks[i].place.uncompressed_size
        if size < chunks[0].place.context_size // HELD_WHOLE:
            parts = PyByteArray_FromStringAndSize(NULL, size)
            self.buffers.append(parts)
            at = <uint8_t *>PyByteArray_AS_STRING(parts)
        else:
            self.buffers.append(plain)
        for i in range(count):
            if not (is_due(&chunks[i], True) or is_due(&chunks[i], False)):
                continue
            chunks[i].plain = <uint8_t *>base + chunks[i].place.context_offset
            if at != NULL:
                memcpy(at, chunks[i].plain, chunks[i].place.uncompressed_size)
                chunks[i].plain = at
                at += chunks[i].place.uncompressed_size
            chunks[i].state |= CHUNK_DECODED
        return 0

    # --- whether the bytes are those that the image promises

    cdef int check(self, Chunk *chunk) except -1:
        """PLAIN when the bytes are those that the image promises, else BAD."""
        cdef uint32_t crc
        chunk.state &= ~<uint32_t>CHUNK_DECODED
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

    cdef int raise_bad(self, const Chunk *chunks, uint32_t count) except -1:
        cdef uint32_t i
        for i in range(count):
            if chunks[i].state & CHUNK_NEEDED and chunks[i].state & CHUNK_BAD:
                raise ChunkCorrupt(self.blob.info.blob_id, chunks[i].index,
                                   self.reasons[chunks[i].index])
        return 0
