"""Making room in the cache file of one open blob: chunks that were not used for longest go.

Right bytes at every moment rest on this order, for a batch of chunks at a time:
nobody else has the file open (a lease; who opens it waits for the end of the batch); the chunks
are claimed, so that no fetch writes them; their bits go, in memory and on the disk, so that no
crash leaves a bit without bytes; their bytes go; `Uses.evictions` is raised, by which a read that
was under way sees that it may have copied holes. Runs with the GIL on the thread of `cache.room`.
"""

from libc.stdint cimport uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.plan cimport same_unit
from nydusd.cache.uses cimport Use
from nydusd.rafs.blobmeta cimport ChunkPlace


cdef extern from "<signal.h>" nogil:
    void (*signal(int, void (*)(int)))(int)
    void SIG_IGN(int)
    int SIGIO

cdef enum:
    BATCH_CHUNKS = 512      # under one lease: whoever opens the file waits for so many


def ignore_lease_breaks():
    """Let somebody open a leased file without ending this process: the kernel tells by SIGIO."""
    signal(SIGIO, SIG_IGN)


cdef bint find_use(CachedBlob blob, uint32_t index, Use *use) noexcept nogil:
    """Where chunk *index* lies in the cache file, and its last use; false when nobody knows."""
    cdef ChunkPlace place
    use[0] = blob.uses.rows[index]
    if use.stamp:
        return True
    if blob.meta is None or blob.meta.chunk(index, &place) != 0 or blob.check_place(&place) != 0:
        return False
    use.offset, use.size = place.uncompressed_offset, place.uncompressed_size
    if blob.compressed:
        use.offset, use.size = place.compressed_offset, place.compressed_size
    return True


cdef bint is_here(CachedBlob blob, uint32_t index) noexcept nogil:
    return blob.chunks.is_ready(index) or blob.chunks.is_promised(index)


def bytes_by_stamp(CachedBlob blob):
    """Bytes in the cache file by the stamp of their last use; 0: not used by this process."""
    cdef dict found = {}
    cdef uint32_t index
    cdef Use use
    if blob.uses is None:
        return found
    for index in range(blob.uses.count):
        if is_here(blob, index) and find_use(blob, index, &use):
            found[use.stamp] = found.get(use.stamp, 0) + use.size
    return found


cdef uint32_t end_of_unit(CachedBlob blob, uint32_t index) noexcept nogil:
    """The chunk after those that lie in the same bytes of the cache file as *index*."""
    cdef ChunkPlace first
    cdef ChunkPlace place
    cdef uint32_t end = index + 1
    if not blob.compressed or blob.meta is None or blob.meta.chunk(index, &first) != 0:
        return end
    while (end < blob.uses.count and blob.meta.chunk(end, &place) == 0
           and same_unit(&first, &place)):
        end += 1
    return end


cdef uint64_t take_unit(CachedBlob blob, uint32_t start, uint32_t end, uint32_t up_to,
                        list taken) except? 0:
    """Claim [start, end) if all of it may go; bytes of it, 0 when it stays."""
    cdef Use use
    cdef uint32_t index
    cdef uint32_t claimed
    cdef bint any_here = False
    for index in range(start, end):
        if not find_use(blob, index, &use) or use.stamp > up_to:
            return 0
        any_here = any_here or is_here(blob, index)
    if not any_here or use.size == 0:
        return 0
    for claimed in range(start, end):
        if not blob.chunks.claim(claimed):
            for index in range(start, claimed):
                blob.chunks.release(index)
            return 0
    taken.extend(range(start, end))
    return use.size


def evict(CachedBlob blob, uint32_t up_to, uint64_t wanted):
    """Evict chunks last used at stamp *up_to* or before until *wanted* bytes are free; how many.

    0: nothing may go, or another process has the file open. `OSError` when bits or bytes cannot be
    taken away; what is left is right.
    """
    cdef uint64_t freed = 0
    cdef uint64_t size
    cdef uint32_t index = 0
    cdef uint32_t end
    cdef list taken
    if blob.uses is None:
        return 0
    blob.enter()
    try:
        while freed < wanted and index < blob.uses.count:
            if not blob.file.lock_out():
                break
            taken = []
            try:
                while freed < wanted and index < blob.uses.count and len(taken) < BATCH_CHUNKS:
                    end = end_of_unit(blob, index)
                    size = take_unit(blob, index, end, up_to, taken)
                    freed += size
                    index = end
                if taken:
                    remove(blob, taken)
            finally:
                for claimed in taken:
                    blob.chunks.release(claimed)
                blob.chunks.wake()
                blob.file.let_in()
    finally:
        blob.leave()
    return freed


cdef void leave_neighbours(CachedBlob blob, uint32_t index, Use *use) noexcept nogil:
    """Take out of *use*, the bytes of chunk *index*, what the units beside its own need as well.

    Stretches of a gzip layer overlap where a deflate block is longer than what lies between two
    chunks. Whether the neighbour is here does not matter: it may be written in this moment.
    """
    cdef ChunkPlace own
    cdef ChunkPlace other
    cdef uint64_t start = use.offset
    cdef uint64_t end = use.offset + use.size
    cdef uint32_t first = index
    cdef uint32_t last = end_of_unit(blob, index)
    if not blob.compressed or blob.meta is None or blob.meta.chunk(index, &own) != 0:
        return
    while first > 0 and blob.meta.chunk(first - 1, &other) == 0 and same_unit(&own, &other):
        first -= 1
    if first > 0 and blob.meta.chunk(first - 1, &other) == 0:
        start = max(start, min(end, other.compressed_offset + other.compressed_size))
    if last < blob.uses.count and blob.meta.chunk(last, &other) == 0:
        end = min(end, max(start, other.compressed_offset))
    use.offset = start
    use.size = <uint32_t>(end - start)


cdef int remove(CachedBlob blob, list taken) except -1:
    """Bits first, bytes second; the chunks are claimed, and the file is nobody else's."""
    cdef Use use
    cdef uint32_t index
    cdef uint32_t unit_end = 0      # whole units are taken, one after the other
    blob.durable.drop(taken)
    try:
        for index in taken:
            if index >= unit_end and find_use(blob, index, &use):
                unit_end = end_of_unit(blob, index)
                leave_neighbours(blob, index, &use)
                blob.file.punch(use.offset, use.size)
            blob.uses.rows[index].stamp = 0
    finally:
        blob.uses.raise_evictions()
    return 0
