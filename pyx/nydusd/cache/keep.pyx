"""Writing to the cache file what a fetch has had, and setting the bits of its chunks.

What came along is decoded here, after the reader has its answer, slice by slice: few bytes are
written to memory that has not just been used. A chunk's bytes are on their way to the disk before
its bit is set. Runs with the GIL on the thread of the fetch, or on another one after it; decoding
and the disk give it up.
"""

from cpython.bytearray cimport (
    PyByteArray_AS_STRING, PyByteArray_FromStringAndSize, PyByteArray_Resize,
)
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport ENODATA
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from nydusd.cache.cached_blob cimport COUNT_KEPT_BYTES, COUNT_KEPT_CHUNKS, CachedBlob
from nydusd.cache.fetch cimport Fetch
from nydusd.cache.heap cimport give_buffer
from nydusd.cache.plan cimport (
    CHUNK_KEPT, CHUNK_MINE, CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_WANTED, Chunk, adjoins, is_in_hand,
    same_unit, unit_end,
)
from nydusd.rafs.blobmeta cimport ChunkPlace


cdef extern from "<Python.h>":
    int PyBUF_READ

cdef enum:
    STAGING_BYTES = 1 << 20     # chunks of a unit are put side by side, as in the cache file, in
    # Plain bytes that are decoded before they are written to the cache file: they are in the
    # processor's cache then, and the next ones take their place.
    SLICE_BYTES = 1 << 19
    NO_ROOM = 1     # instead of -errno: the directory is at its limit


cdef bint keep_fetched(Fetch fetch) except -1:
    cdef const Chunk *chunks = fetch.claims.chunks
    cdef uint32_t i
    cdef uint32_t start
    cdef uint32_t limit
    cdef uint32_t end
    if not fetch.blob.keeps:
        return False
    for i in range(fetch.range_count):
        start = fetch.ranges[i].first
        limit = start + fetch.ranges[i].count
        while start < limit:
            end = slice_end(fetch, start, limit)
            keep_slice(fetch, i, start, end)
            start = end
    for i in range(fetch.claims.count):
        if chunks[i].state & (CHUNK_WANTED | CHUNK_NEEDED | CHUNK_KEPT) == (
                CHUNK_WANTED | CHUNK_NEEDED):
            return False
    return True


cdef uint32_t slice_end(Fetch fetch, uint32_t start, uint32_t limit) noexcept nogil:
    """Where the slice from chunk *start* on ends: whole units of about SLICE_BYTES."""
    cdef const Chunk *chunks = fetch.claims.chunks
    cdef uint64_t size = 0
    cdef uint32_t end = start
    while end < limit and size < SLICE_BYTES:
        start = end
        end = min(limit, unit_end(chunks, limit, start))
        while start < end:
            if is_in_hand(&chunks[start]):
                size += chunks[start].place.uncompressed_size
            start += 1
    return end


cdef int keep_slice(Fetch fetch, uint32_t i, uint32_t start, uint32_t end) except -1:
    """Decode what came along of the chunks [start, end) of range *i*, and keep all of them.

    Chunks that nobody waits for are not held any longer, kept or not.
    """
    cdef Chunk *chunks = fetch.claims.chunks
    cdef list buffers = fetch.decoder.buffers
    cdef Py_ssize_t held = len(buffers)
    cdef Py_ssize_t own
    cdef uint32_t c
    fetch.lay_out(start, end - start, 0)
    own = len(buffers)
    fetch.decode(i, start, end - start, False)
    keep_chunks(fetch, start, end)
    for c in range(start, end):
        if not chunks[c].state & CHUNK_NEEDED:
            chunks[c].state &= ~<uint32_t>(CHUNK_WANTED | CHUNK_PLAIN)
            chunks[c].plain = NULL
    del buffers[own:]       # of shared units, which others may have been given too
    while len(buffers) > held:
        give_buffer(buffers.pop())
    return 0


cdef int keep_chunks(Fetch fetch, uint32_t i, uint32_t limit) except -1:
    """Write those of the chunks [i, limit) that are good to the cache file."""
    cdef uint32_t end
    cdef int rc
    while i < limit:
        if not is_keepable(fetch, i):
            i += 1
            continue
        end = i + 1
        while end < limit and is_keepable(fetch, end) and belong_together(fetch, i, end):
            end += 1
        if fetch.blob.compressed:
            rc = store_stored(fetch, i, end)
        elif fetch.claims.chunks[i].run:
            rc = store_run(fetch, i, end)
        else:
            rc = store_staged(fetch, i, end)
        fetch.blob.disk_refuses = rc != 0
        if rc < 0 and fetch.blob.file.keeps:
            fetch.blob.note_disk(rc)
        i = end
    return 0


cdef bint is_keepable(Fetch fetch, uint32_t i) noexcept nogil:
    cdef uint32_t state = fetch.claims.chunks[i].state
    if fetch.blob.uses is not None and not state & CHUNK_MINE:
        return False    # who has the claim may be taking the chunk's bytes away
    return (state & (CHUNK_WANTED | CHUNK_PLAIN | CHUNK_KEPT)
            == CHUNK_WANTED | CHUNK_PLAIN)


cdef bint belong_together(Fetch fetch, uint32_t i, uint32_t j) noexcept nogil:
    """Whether the chunks *i* < *j* go to the cache file in one go."""
    cdef const Chunk *chunks = fetch.claims.chunks
    if fetch.blob.compressed or not chunks[i].run:
        return same_unit(&chunks[i].place, &chunks[j].place)
    return chunks[i].run == chunks[j].run


cdef int store_run(Fetch fetch, uint32_t start, uint32_t end) except? -1:
    """Write the chunks [start, end), which lie in one buffer as in the cache file."""
    cdef const ChunkPlace *first = &fetch.claims.chunks[start].place
    cdef const ChunkPlace *last = &fetch.claims.chunks[end - 1].place
    return store(
        fetch, start, end, first.uncompressed_offset, fetch.claims.chunks[start].plain,
        last.uncompressed_offset - first.uncompressed_offset + last.uncompressed_size)


cdef int store_stored(Fetch fetch, uint32_t start, uint32_t end) except? -1:
    """Write the stored bytes of the chunks [start, end), which are of one unit."""
    cdef const ChunkPlace *unit = &fetch.claims.chunks[start].place
    return store(fetch, start, end, unit.compressed_offset,
                 stored_bytes(fetch, &fetch.claims.chunks[start]), unit.compressed_size)


cdef int store_staged(Fetch fetch, uint32_t start, uint32_t end) except? -1:
    """Write the chunks [start, end) of a shared unit, put side by side first where they fit."""
    cdef const Chunk *chunks = fetch.claims.chunks
    cdef bytearray staging = PyByteArray_FromStringAndSize(NULL, 0)
    cdef uint32_t last
    cdef int rc = 0
    while start < end and rc == 0:
        last = start + 1
        while (last < end and adjoins(&chunks[last - 1], &chunks[last], fetch.aligned)
                and chunks[last].place.uncompressed_offset
                - chunks[start].place.uncompressed_offset
                + chunks[last].place.uncompressed_size <= STAGING_BYTES):
            last += 1
        if last - start > 1:
            stage(chunks, start, last, staging)
            rc = store(fetch, start, last, chunks[start].place.uncompressed_offset,
                       <const uint8_t *>PyByteArray_AS_STRING(staging), len(staging))
        else:
            rc = store_run(fetch, start, last)
        start = last
    return rc


cdef int stage(const Chunk *chunks, uint32_t start, uint32_t end,
               bytearray staging) except -1:
    """Fill *staging* with the chunks [start, end) as they lie in the cache file."""
    cdef uint64_t base = chunks[start].place.uncompressed_offset
    cdef uint64_t filled = 0
    cdef uint64_t at
    cdef uint8_t *target
    cdef uint32_t i
    PyByteArray_Resize(staging, chunks[end - 1].place.uncompressed_offset - base
                       + chunks[end - 1].place.uncompressed_size)
    target = <uint8_t *>PyByteArray_AS_STRING(staging)
    for i in range(start, end):
        at = chunks[i].place.uncompressed_offset - base
        memset(target + filled, 0, at - filled)
        memcpy(target + at, chunks[i].plain, chunks[i].place.uncompressed_size)
        filled = at + chunks[i].place.uncompressed_size
    return 0


cdef int store(Fetch fetch, uint32_t start, uint32_t end, uint64_t offset, const uint8_t *data,
               uint64_t size) except? -1:
    """Write the *size* bytes that are the chunks [start, end), then set their bits.

    0, -errno, NO_ROOM.
    """
    cdef object room = None
    cdef Chunk *chunks = fetch.claims.chunks
    cdef uint32_t i
    cdef int rc
    cdef bytearray sealed
    if fetch.blob.pages is not None:
        sealed = fetch.blob.pages.seal(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))
        data = <const uint8_t *>PyByteArray_AS_STRING(sealed)
        size = len(sealed)
    if fetch.blob.uses is not None:
        room = fetch.blob.uses.room
    if room is not None and not room.take(size, wait=fetch.prefetching):
        return NO_ROOM
    with nogil:
        if fetch.blob.fresh is None:
            rc = fetch.blob.file.store(offset, data, size)
        else:
            rc = store_vouched(fetch.blob, chunks + start, end - start, offset, data, size)
    if room is not None:
        room.give(size, written=rc == 0)
    if rc == -ENODATA:
        fetch.blob.lose_file()
    if rc != 0:
        return rc
    for i in range(start, end):
        fetch.blob.note_use(chunks[i].index, &chunks[i].place)
        fetch.blob.chunks.set_ready(chunks[i].index)    # data before bit
        chunks[i].state |= CHUNK_KEPT
    fetch.blob.counters.add(COUNT_KEPT_BYTES, size)
    fetch.blob.counters.add(COUNT_KEPT_CHUNKS, end - start)
    return 0


cdef int store_vouched(CachedBlob blob, const Chunk *chunks, uint32_t count, uint64_t offset,
                       const uint8_t *data, uint64_t size) noexcept nogil:
    """Write *count* chunks to a file of which `fresh` tells what was checked a moment ago."""
    cdef int number = blob.fresh.begin_write(offset, size)
    cdef int rc = blob.file.store(offset, data, size)
    cdef uint32_t i
    if rc == 0:
        for i in range(count):
            blob.fresh.vouch(number, chunks[i].index, &chunks[i].place, chunks[i].digest)
    blob.fresh.end_write(number)
    return rc


cdef const uint8_t *stored_bytes(Fetch fetch, const Chunk *chunk) except NULL:
    cdef uint32_t i
    for i in range(fetch.range_count):
        if (chunk.place.compressed_offset >= fetch.ranges[i].offset
                and chunk.place.compressed_offset - fetch.ranges[i].offset
                + chunk.place.compressed_size <= fetch.ranges[i].size):
            return (<const uint8_t *>PyByteArray_AS_STRING(fetch.stored[i])
                    + (chunk.place.compressed_offset - fetch.ranges[i].offset))
    raise AssertionError("a decoded chunk is in no range")
