"""Bringing chunks to local disk that nobody waits for: the byte work of `cache.prefetch`.

One call is one backend request, or few; it runs with the GIL on a thread of prefetch. `get_run` and
`get_spans` return when the bytes are here; another thread may decode and keep them while the next
ones come. `claim_run` is for `cache.ahead`, which claims on one thread what another one gets.
"""

from libc.stdint cimport uint32_t, uint64_t

cimport cython

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.fetch cimport Fetch
from nydusd.cache.heap cimport note_end
from nydusd.cache.keep cimport keep_fetched
from nydusd.cache.neighbours cimport bring_run
from nydusd.cache.plan cimport Window, in_window, open_window, widen_window
from nydusd.cache.span_reader cimport chunk_span
from nydusd.rafs.blobmeta cimport ChunkPlace
from nydusd.rafs.bootstrap cimport SPAN_HOLE, ChunkSpan


cdef uint64_t end(Fetch fetch) except? 0:
    cdef uint64_t size = fetch.drop()
    note_end(size)
    return size


@cython.final
cdef class Filling:
    """Chunks whose stored bytes are here: `keep` must be called, once.

    Readers who want one of these chunks wait for that. `size`: bytes that were asked for. `bound`:
    it must be the thread that got them, which holds some of `cache.allowance`.
    """

    def keep(self):
        """Decode them, write them to the cache file, and let go of them."""
        try:
            keep_fetched(self.fetch)
        finally:
            end(self.fetch)


cdef Filling got(Fetch fetch, uint64_t batch_size):
    cdef Filling filling = Filling()
    cdef uint32_t i
    fetch.claims.sort()
    fetch.get(batch_size)
    for i in range(fetch.range_count):
        filling.size += fetch.ranges[i].size
    filling.fetch = fetch
    filling.bound = fetch.decoder.allowed != 0
    return filling


@cython.final
cdef class ClaimedRun:
    """Chunks that are claimed, in their order: `fill` or `give_up` must be called, once.

    `after`: the chunk after the last one.
    """

    cdef Fetch fetch
    cdef readonly uint32_t after

    def fill(self, uint64_t batch_size):
        """Have them and keep them. `BackendError`."""
        try:
            self.fetch.get(batch_size)
            keep_fetched(self.fetch)
        finally:
            end(self.fetch)

    def give_up(self):
        """Leave them to whoever wants them."""
        end(self.fetch)


def next_missing(CachedBlob blob, uint32_t first, uint32_t last):
    """The first of the chunks [*first*, *last*) that is neither here nor claimed.

    Where there is none: *last*, or the number of chunks if that is less. The CI array must be
    there.
    """
    cdef ChunkPlace place
    cdef uint32_t index = first
    last = min(last, blob.chunks.count)
    while index < last:
        if (blob.meta.chunk(index, &place) != 0
                or not (blob.has(index, &place) or blob.chunks.is_claimed(index))):
            break
        index += 1
    return index


def claim_run(CachedBlob blob, uint32_t first, uint64_t batch_size):
    """Claim what is missing from chunk *first* on: as much as a read would have of it.

    None where that is nothing. Chunks of shared units end a run: what they take is bounded by
    `cache.allowance`, which is for readers. The CI array must be there.
    """
    cdef Fetch fetch
    cdef ClaimedRun run = ClaimedRun()
    if not blob.is_keeping():
        return None
    fetch = Fetch(blob, prefetching=True)
    try:
        run.after = bring_run(fetch.claims, first, batch_size)
        run.fetch = fetch
    except BaseException:
        end(fetch)
        raise
    if run.after > first:
        return run
    end(fetch)
    return None


def run_end(CachedBlob blob, uint32_t first, uint64_t batch_size, uint64_t most, uint64_t limit):
    """Where the request that begins at chunk *first* of a blob with a CI array ends.

    The chunk after its last one: chunks that are here are passed over, the request has *most*
    stored bytes where that is more than *batch_size*, what comes out of it is bounded as for one of
    *batch_size*, no chunk begins at or after *limit*. *first* when nothing is left. The CI array
    must be there (`CachedBlob.load_description`).
    """
    cdef ChunkPlace place
    cdef Window window
    cdef uint32_t index = first
    cdef bint opened = False
    if blob.meta is None or not blob.is_keeping():
        return first        # closed, or nothing can be filled
    while index < blob.chunks.count:
        if blob.meta.chunk(index, &place) != 0:
            return index + 1        # a broken entry: its readers get the error
        if place.compressed_offset >= limit:
            break
        if not blob.has(index, &place):
            if not opened:
                open_window(&window, &place, batch_size)
                if most > window.goal:
                    window.goal = window.most = most
                opened = True
            elif in_window(&window, &place):
                widen_window(&window, &place)
            else:
                break
        index += 1
    return index


def get_run(CachedBlob blob, uint32_t first, uint32_t last, uint64_t batch_size):
    """Have the chunks [*first*, *last*) of a blob with a CI array.

    Chunks that are here or claimed are passed over. `BackendError`.
    """
    cdef Fetch fetch = Fetch(blob, prefetching=True)
    cdef ChunkPlace place
    cdef uint32_t index
    try:
        blob.need_description()
        for index in range(first, last):
            if blob.meta.chunk(index, &place) == 0 and blob.check_place(&place) == 0:
                fetch.claims.take_along(index, &place, NULL)
        return got(fetch, batch_size)
    except BaseException:
        end(fetch)
        raise


def get_spans(CachedBlob blob, list spans, uint64_t batch_size):
    """Have the chunks of *spans* (`rafs.records.Span`, all of *blob*).

    Chunks that are here or claimed are passed over. `BackendError`, `BlobCorrupt`.
    """
    cdef Fetch fetch = Fetch(blob, prefetching=True)
    cdef ChunkSpan span
    cdef ChunkPlace place
    try:
        blob.need_description()
        for record in spans:
            chunk_span(record, &span)
            if blob.place(&span, &place) == 0:
                fetch.claims.take_along(span.chunk_index, &place, span.digest)
        return got(fetch, batch_size)
    except BaseException:
        end(fetch)
        raise


def cut_spans(CachedBlob blob, list spans, uint64_t batch_size, double batches, uint32_t parts):
    """*spans* of *blob* as lists, in the order of their places: one request for each.

    What is here, or told twice, is left out. A request has *batches* times *batch_size* stored
    bytes at most, and *batch_size* where there would be fewer requests than *parts* else; what
    comes out of it is bounded as for one of *batch_size*. `BackendError`, `BlobCorrupt`.
    """
    cdef ChunkSpan span
    cdef ChunkPlace place
    cdef Window window
    cdef uint64_t total = 0
    cdef uint64_t most
    cdef list runs = []
    cdef list run = []
    cdef dict found = {}
    if not blob.is_keeping():
        return runs
    blob.need_description()
    for record in spans:
        chunk_span(record, &span)
        if (not span.flags & SPAN_HOLE and span.chunk_index not in found
                and blob.place(&span, &place) == 0 and not blob.has(span.chunk_index, &place)):
            found[span.chunk_index] = (place.compressed_offset, record)
            total += place.compressed_size
    most = max(batch_size, min(total // max(parts, 1), <uint64_t>(batch_size * batches)))
    for _, record in sorted(found.values(), key=by_place):
        chunk_span(record, &span)
        if blob.place(&span, &place) != 0:
            continue
        if run and in_window(&window, &place):
            run.append(record)
            widen_window(&window, &place)
        else:
            run = [record]
            runs.append(run)
            open_window(&window, &place, batch_size)
            if most > batch_size:
                window.goal = window.most = most
    return runs


def by_place(entry):
    """Where a span of `cut_spans` begins in its blob."""
    return entry[0]


def first_missing(CachedBlob blob):
    """Where the stored bytes of the first missing chunk of a blob with a CI array begin.

    None: nothing is missing, or nothing can be filled. The CI array must be there.
    """
    cdef ChunkPlace place
    cdef uint32_t index
    if blob.meta is None or not blob.is_keeping():
        return None
    for index in range(blob.chunks.count):
        if blob.meta.chunk(index, &place) == 0 and not blob.has(index, &place):
            return place.compressed_offset
    return None


def fill_stored(CachedBlob blob, uint32_t first, uint64_t offset, bytearray stored):
    """Keep the chunks from *first* on that lie whole in *stored*, the blob's bytes at *offset*.

    `(chunk, offset)`: the first chunk that does not, and from where on its bytes are needed.
    Chunks that begin before *offset*, are here, claimed, or broken in the image are passed over.
    """
    cdef Fetch fetch = Fetch(blob, prefetching=True)
    cdef ChunkPlace place
    cdef uint32_t index = first
    cdef uint64_t limit = offset + <uint64_t>len(stored)
    cdef uint64_t needed_from = limit
    try:
        blob.need_description()
        while index < blob.chunks.count:
            if blob.meta.chunk(index, &place) == 0 and blob.check_place(&place) == 0:
                if place.compressed_offset + place.compressed_size > limit:
                    needed_from = min(place.compressed_offset, limit)
                    break
                if place.compressed_offset >= offset:
                    fetch.claims.take_along(index, &place, NULL)
            index += 1
        fetch.claims.sort()
        if fetch.claims.count > 0:
            fetch.take_stored(offset, stored)
            keep_fetched(fetch)
    finally:
        end(fetch)
    return index, max(needed_from, offset)
