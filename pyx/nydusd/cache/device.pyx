"""All blobs of one image: a read's spans to bytes, from local disk or through a fetch.

The read side takes no lock and no GIL. `fetch` is the gate up for threads that may wait; what it
must never do is wait for somebody else's claim. The mount closes the device when nobody reads.
"""

import logging

from libc.errno cimport EAGAIN, EIO, ENODATA
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free

cimport cython

from nydusd.base.parking cimport counter_of
from nydusd.cache.cached_blob cimport (
    COUNT_HIT_BYTES, COUNT_HITS, COUNT_MISSES, COUNT_WHOLE_HITS, CachedBlob,
)
from nydusd.cache.fetch cimport Fetch
from nydusd.cache.heap cimport note_end
from nydusd.cache.keep cimport keep_fetched
from nydusd.cache.neighbours cimport bring_neighbours
from nydusd.cache.plan cimport CHUNK_NEEDED, CHUNK_PLAIN, CHUNK_WANTED, Chunk
from nydusd.cache.target cimport (
    READ_AGAIN, READ_ANSWERED, READ_CLAIMED, READ_DONE, READ_MISSING, Mark, ReadTarget, add_segment,
    add_zeros, mark, undo,
)
from nydusd.rafs.bootstrap cimport SPAN_HOLE, ChunkSpan

from nydusd.base.errors import ChunkCorrupt, ErrorLog

logger = logging.getLogger("nydusd")


cdef int waiting = 0        # reads inside `fetch`; guarded by the GIL


def waiting_readers():
    """Reads of this process that are being fetched right now; prefetch gives way to them."""
    return waiting


@cython.final
cdef class Device:
    """The *blobs* of one image by blob index, None for a blob without chunks.

    *release* is called once, when the device is closed. *on_fetch* is told what a read gets of a
    blob with a CI array before it asks the backend: blob, first chunk that it needs, the chunk
    after the last one that comes along. It must not wait.
    """

    def __cinit__(self, blobs, uint64_t batch_size, release=None, on_fetch=None):
        cdef uint32_t i
        cdef CachedBlob blob
        self.blobs = tuple(blobs)
        self.batch_size = batch_size
        self.release = release
        self.on_fetch = on_fetch
        self.errors = ErrorLog()
        self.count = len(self.blobs)
        self.table = <void **>calloc(self.count or 1, sizeof(void *))
        if self.table == NULL:
            raise MemoryError
        for i in range(self.count):
            if self.blobs[i] is not None:
                blob = self.blobs[i]
                self.table[i] = <void *>blob

    def __dealloc__(self):
        free(self.table)

    cdef int read(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) noexcept nogil:
        cdef int rc = self.look(spans, count, target)
        if rc == READ_DONE:
            rc = self.gather(spans, count, target)
        return rc

    cdef int look(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) noexcept nogil:
        """What the read as a whole is: the worst of its spans."""
        cdef uint32_t i
        cdef int rc
        cdef bint missing = False
        cdef const uint64_t *wait_on = NULL
        cdef uint64_t seen = 0
        cdef uint64_t before
        cdef const uint64_t *counter
        for i in range(count):
            if spans[i].flags & SPAN_HOLE:
                continue
            if spans[i].blob_index >= self.count or self.table[spans[i].blob_index] == NULL:
                return READ_MISSING     # there is no such blob: `fetch` says so
            # Looked at before the claim: a release after that makes `park` refuse to wait.
            counter = &(<CachedBlob>self.table[spans[i].blob_index]).chunks.counter
            before = counter_of(counter)
            rc = (<CachedBlob>self.table[spans[i].blob_index]).look(&spans[i], target.impatient)
            if rc == READ_MISSING:
                missing = True
            elif rc == READ_CLAIMED and wait_on == NULL:
                wait_on = counter
                seen = before
        if missing:
            return READ_MISSING
        if wait_on != NULL:
            target.wait_on = wait_on
            target.wait_seen = seen
            return READ_CLAIMED
        return READ_DONE

    cdef int gather(self, const ChunkSpan *spans, uint32_t count,
                    ReadTarget *target) noexcept nogil:
        """Segments for spans that are all on local disk; READ_MISSING when a file was cut."""
        cdef uint32_t i
        cdef int rc = 0
        cdef uint32_t blob = 0
        cdef Mark start = mark(target)
        for i in range(count):
            if spans[i].flags & SPAN_HOLE:
                rc = add_zeros(target, spans[i].length)
            else:
                blob = spans[i].blob_index
                rc = (<CachedBlob>self.table[blob]).answer(&spans[i], target)
            if rc != 0:
                break
        if rc == 0:
            if count > 0 and self.count > 0 and self.table[blob] != NULL:
                (<CachedBlob>self.table[blob]).counters.add(COUNT_HITS, 1)
                (<CachedBlob>self.table[blob]).counters.add(COUNT_HIT_BYTES,
                                                            target.length - start.length)
            return READ_DONE
        undo(target, &start)
        return READ_MISSING if rc == -ENODATA or rc == -EAGAIN else rc

    cdef int fetch(self, const ChunkSpan *spans, uint32_t count,
                   const ChunkSpan *following, uint32_t following_count,
                   ReadTarget *target) noexcept nogil:
        return self.fetch_with_gil(spans, count, following, following_count, target)

    cdef int fetch_with_gil(self, const ChunkSpan *spans, uint32_t count,
                            const ChunkSpan *following, uint32_t following_count,
                            ReadTarget *target) noexcept with gil:
        """The gate up: whatever goes wrong before the answer becomes -errno.

        Corrupt chunks are asked for once more where another source, or another table of where they
        lie, may have them right.
        """
        cdef FetchedRead work
        try:
            try:
                work = FetchedRead(self)
                return work.run(spans, count, following, following_count, target)
            except ChunkCorrupt as exc:
                if not exc.elsewhere:
                    raise
                logger.warning("%s; it is asked for once more", exc)
            work = FetchedRead(self)
            return work.run(spans, count, following, following_count, target)
        except BaseException as exc:
            return -<int>self.errors.errno_of(exc)

    def close(self):
        """Give the blobs back; nobody reads any more."""
        cdef uint32_t i
        for i in range(self.count):
            self.table[i] = NULL
        self.on_fetch = None
        release, self.release = self.release, None
        if release is not None:
            release()

    def snapshot(self):
        """The counters of all blobs of the image, added up (blobs may serve other mounts too)."""
        total = {}
        for blob in self.blobs:
            if blob is not None:
                for name, value in blob.counters.snapshot().items():
                    total[name] = total.get(name, 0) + value
        return total


@cython.final
cdef class FetchedRead:
    """One read on its way through the fetching side; one `Fetch` for each blob it touches."""

    cdef Device device
    cdef dict fetches       # blob index -> Fetch

    def __cinit__(self, Device device):
        self.device = device
        self.fetches = {}

    cdef int run(self, const ChunkSpan *spans, uint32_t count, const ChunkSpan *following,
                 uint32_t following_count, ReadTarget *target) except? -1:
        global waiting
        cdef Fetch fetch
        cdef uint64_t size = 0
        waiting += 1
        try:
            self.collect(spans, count)
            if self.missing() == 0:
                return READ_AGAIN if self.all_direct() else self.answer(spans, count, target)
            if not self.claim(target.impatient):
                return READ_AGAIN
            self.bring_along(spans, count, following, following_count)
            if self.device.on_fetch is not None:
                self.tell_fetch(self.device.on_fetch)
            self.get()
            if self.wanted() == self.missing():
                return self.answer_and_keep(spans, count, target)
            if self.keep():
                return READ_AGAIN
            # What was claimed could not be kept for the next look: have all of it, and answer.
            self.claim(True)
            self.get()
            return self.answer_and_keep(spans, count, target)
        finally:
            waiting -= 1
            for fetch in self.fetches.values():
                size += fetch.drop()
            note_end(size)

    cdef int collect(self, const ChunkSpan *spans, uint32_t count) except -1:
        """What is needed of each blob, and what of it is here."""
        cdef uint32_t i
        cdef Fetch fetch
        for i in range(count):
            if spans[i].flags & SPAN_HOLE:
                continue
            fetch = self.fetches.get(spans[i].blob_index)
            if fetch is None:
                if (spans[i].blob_index >= self.device.count
                        or self.device.blobs[spans[i].blob_index] is None):
                    raise ChunkCorrupt(f"number {spans[i].blob_index}", spans[i].chunk_index,
                                       "the image has no such blob with chunks")
                fetch = Fetch(self.device.blobs[spans[i].blob_index])
                self.fetches[spans[i].blob_index] = fetch
            fetch.claims.need(&spans[i])
        for fetch in self.fetches.values():
            fetch.claims.sort()
            fetch.claims.look_up()
        return 0

    cdef uint32_t missing(self) except? 0xffffffff:
        cdef Fetch fetch
        cdef uint32_t total = 0
        for fetch in self.fetches.values():
            total += fetch.claims.missing
        return total

    cdef uint32_t wanted(self) except? 0xffffffff:
        cdef Fetch fetch
        cdef uint32_t total = 0
        for fetch in self.fetches.values():
            total += fetch.claims.wanted
        return total

    cdef bint all_direct(self) except -1:
        """Whether a look at the device now finds what was missing before."""
        cdef Fetch fetch
        for fetch in self.fetches.values():
            if not fetch.blob.direct:
                return False
        return True

    cdef bint claim(self, bint regardless) except -1:
        """Claim what is missing; false when somebody else has all of it."""
        cdef Fetch fetch
        for fetch in self.fetches.values():
            fetch.claims.claim(regardless)
        return self.wanted() > 0 or self.missing() == 0

    cdef int bring_along(self, const ChunkSpan *spans, uint32_t count, const ChunkSpan *following,
                         uint32_t following_count) except -1:
        """Neighbours of what is wanted; *following* (v5) belongs to the blob of the last span."""
        cdef Fetch fetch
        cdef uint32_t n = 0
        for index, fetch in self.fetches.items():
            n = 0
            while n < following_count and following[n].blob_index == <uint32_t>index:
                n += 1
            bring_neighbours(fetch.claims, self.device.batch_size, following, n)
        return 0

    cdef int tell_fetch(self, on_fetch) except -1:
        """Tell *on_fetch* what is asked of each blob now."""
        cdef Fetch fetch
        cdef const Chunk *chunk
        cdef const Chunk *first
        cdef uint32_t after
        cdef uint32_t i
        for fetch in self.fetches.values():
            first = NULL
            after = 0
            for i in range(fetch.claims.count):
                chunk = &fetch.claims.chunks[i]
                if chunk.state & CHUNK_WANTED:
                    after = max(after, chunk.index + 1)
                    if first == NULL and chunk.state & CHUNK_NEEDED:
                        first = chunk
            if first != NULL and fetch.blob.meta is not None:
                on_fetch(fetch.blob, first.index, after)
        return 0

    cdef int get(self) except -1:
        cdef Fetch fetch
        for fetch in self.fetches.values():
            fetch.get(self.device.batch_size)
        return 0

    cdef bint keep(self) except -1:
        cdef Fetch fetch
        cdef bint all_kept = True
        for fetch in self.fetches.values():
            if not keep_fetched(fetch):
                all_kept = False
        return all_kept

    cdef int answer_and_keep(self, const ChunkSpan *spans, uint32_t count,
                             ReadTarget *target) except? -1:
        cdef int rc = self.answer(spans, count, target)
        try:
            self.keep()
        except Exception as exc:
            # The answer is out: what goes wrong with keeping it is not the reader's.
            logger.warning("what was fetched could not be kept: %s", exc)
        return rc

    cdef int answer(self, const ChunkSpan *spans, uint32_t count, ReadTarget *target) except? -1:
        """Deliver the read: READ_ANSWERED, READ_AGAIN when a cache file was cut just now."""
        cdef Mark start = mark(target)
        cdef int rc = 0
        cdef uint32_t i
        cdef bint copy_only = target.copy_only
        # No segment into a mapping: an answer from here is not repeated when it meets EFAULT.
        target.copy_only = True
        for i in range(count):
            rc = self.add_span(&spans[i], target)
            if rc != 0:
                break
        target.copy_only = copy_only
        if rc != 0:
            undo(target, &start)
            return READ_AGAIN if rc == -ENODATA or rc == -EAGAIN else rc
        self.count_misses()
        with nogil:
            target.answer(target, 0)
        return READ_ANSWERED

    cdef int add_span(self, const ChunkSpan *span, ReadTarget *target) except? -1:
        cdef Fetch fetch
        cdef const Chunk *chunk
        if span.flags & SPAN_HOLE:
            return add_zeros(target, span.length)
        fetch = self.fetches[span.blob_index]
        chunk = fetch.claims.find(span.chunk_index)
        if chunk == NULL:
            return -EIO
        if (span.offset > chunk.place.uncompressed_size
                or span.length > chunk.place.uncompressed_size - span.offset):
            return -EIO         # of two spans of one chunk that contradict each other
        if chunk.state & CHUNK_PLAIN:
            return add_segment(target, chunk.plain + span.offset, span.length)
        return fetch.blob.answer(span, target)

    cdef int count_misses(self) except -1:
        cdef Fetch fetch
        for fetch in self.fetches.values():
            fetch.blob.counters.add(COUNT_MISSES, 1)
            if fetch.range_count == 0 and fetch.blob.file is not None:
                fetch.blob.counters.add(COUNT_WHOLE_HITS, 1)
        return 0
