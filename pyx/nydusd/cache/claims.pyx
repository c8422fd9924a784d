"""The chunks that one fetch is about, and its claims on them: each chunk is fetched once.

A claim (`cache.chunkmap`) keeps every other fetch of the blob from asking for the chunk; readers
wait until it is given up. Which chunks come along with those of a read is for `cache.neighbours`
to say, getting and keeping them for `cache.fetch` and `cache.keep`. Runs with the GIL, on the
thread of the fetch.
"""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

cimport cython

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.decode cimport Decoder
from nydusd.cache.plan cimport (
    CHUNK_MINE, CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_READY, CHUNK_WANTED, Chunk, sort_chunks,
)
from nydusd.rafs.blobmeta cimport ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan

from nydusd.base.errors import ChunkCorrupt


@cython.final
cdef class Claims:
    """No chunk yet, of *blob*; *decoder* tells what its cache file answers."""

    def __cinit__(self, CachedBlob blob, Decoder decoder):
        self.blob = blob
        self.decoder = decoder
        self.chunks = NULL
        self.count = self.room = self.missing = self.wanted = self.cursor = 0

    def __dealloc__(self):
        free(self.chunks)

    cdef int make_room(self) except -1:
        cdef uint32_t room = self.room * 2 if self.room else 32
        cdef Chunk *grown
        if self.count == self.room:
            grown = <Chunk *>realloc(self.chunks, room * sizeof(Chunk))
            if grown == NULL:
                raise MemoryError
            self.chunks = grown
            self.room = room
        return 0

    cdef Chunk *add(self, uint32_t index, const ChunkPlace *place, const uint8_t *digest,
                    uint32_t state) except NULL:
        cdef Chunk *chunk
        self.make_room()
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
        self.make_room()        # which fails before there is a claim to be lost
        if self.blob.has(index, place) or not self.blob.chunks.claim(index):
            return False
        if self.blob.has_claimed(index, place):
            self.blob.chunks.release(index)
            return False
        self.add(index, place, digest, CHUNK_MINE | CHUNK_WANTED)
        return True

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
