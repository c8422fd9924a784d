"""The first requests of a prefetch, by places that the bootstrap tells: no table is waited for.

The bootstrap of a v6 image has a copy of the places of chunks. They say what to ask for while the
blob's own table is still on its way; what the two do not agree about is let go of, and asked for
again like everything else. Only for blobs of which nothing is here, where a wrong place can do no
more than cost bytes. Runs with the GIL on a thread of prefetch.
"""

import logging

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.cache.claims cimport Claims
from nydusd.cache.fetch cimport Fetch
from nydusd.cache.fill cimport Filling, end, got
from nydusd.cache.plan cimport CHUNK_MINE, CHUNK_WANTED, Chunk
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, ChunkPlace

from nydusd.base.errors import BackendError
from nydusd.rafs.blobs import BlobFeature

logger = logging.getLogger("nydusd")

# Chunks whose stored bytes are not where, or not what, such a copy says.
OTHER_UNITS = (BlobFeature.ZRAN | BlobFeature.BATCH | BlobFeature.ENCRYPTED | BlobFeature.TARFS
               | BlobFeature.EXTERNAL)

# What `rafs.chunk_records.places_of_blob` tells of one chunk.
cdef struct ToldPlace:
    uint64_t offset
    uint64_t size           # 0: it does not tell


cdef uint32_t told(bytes places) noexcept:
    """How many chunks *places* are for."""
    return <uint32_t>(<size_t>PyBytes_GET_SIZE(places) // sizeof(ToldPlace))


def may_begin_early(CachedBlob blob):
    """Whether nothing of *blob* is here, its table included, and chunks are stored one by one."""
    cdef uint32_t index
    if (blob.meta is not None or blob.describe is None or not blob.is_keeping()
            or blob.info.features & OTHER_UNITS):
        return False
    for index in range(blob.chunks.count):
        if blob.chunks.is_ready(index) or blob.chunks.is_promised(index):
            return False
    return True


def early_end(bytes places, uint32_t first, uint64_t most):
    """Where the request that begins at chunk *first* ends: the chunk after its last one.

    It has *most* bytes at most, without a gap. *first* when *places* do not tell of that chunk.
    """
    cdef const ToldPlace *place = <const ToldPlace *>PyBytes_AS_STRING(places)
    cdef uint32_t count = told(places)
    cdef uint32_t index = first
    cdef uint64_t size = 0
    while (index < count and 0 < place[index].size <= most - size
           and (index == first or place[index].offset - place[first].offset == size)):
        size += place[index].size
        index += 1
    return index


def get_early(CachedBlob blob, bytes places, uint32_t first, uint32_t last, uint64_t batch_size):
    """Have the chunks [*first*, *last*) from where *places* say they are, then the table.

    Chunks that are here or claimed are passed over. None when there are no bytes to be had: who
    asks by the table will learn why. `BackendError`, `BlobCorrupt` of the table.
    """
    cdef const ToldPlace *said = <const ToldPlace *>PyBytes_AS_STRING(places)
    cdef Fetch fetch = Fetch(blob, prefetching=True)
    cdef Filling filling
    cdef ChunkPlace place
    cdef uint32_t index
    try:
        memset(&place, 0, sizeof(place))
        for index in range(first, min(last, told(places), blob.chunks.count)):
            place.compressed_offset = said[index].offset
            place.compressed_size = <uint32_t>min(said[index].size, <uint64_t>0xffffffff)
            fetch.claims.make_room()        # which fails before there is a claim to be lost
            if blob.check_place(&place) == 0 and blob.chunks.claim(index):
                if blob.chunks.is_ready(index) or blob.chunks.is_promised(index):
                    blob.chunks.release(index)
                else:
                    fetch.claims.add(index, &place, NULL, CHUNK_MINE | CHUNK_WANTED)
        try:
            filling = got(fetch, batch_size)
        except BackendError as exc:
            logger.info("chunks %d to %d of blob %s are not where the bootstrap says: %s",
                        first, last - 1, blob.info.blob_id, exc)
            end(fetch)
            return None
        blob.need_description()
        agree(fetch.claims)
        return filling
    except BaseException:
        end(fetch)
        raise


cdef int agree(Claims claims) except -1:
    """Give each chunk the place that the blob's table tells; let go of those it has elsewhere."""
    cdef CachedBlob blob = claims.blob
    cdef ChunkPlace place
    cdef Chunk *chunk
    cdef uint32_t i
    for i in range(claims.count):
        chunk = &claims.chunks[i]
        if (blob.meta.chunk(chunk.index, &place) == 0 and blob.check_place(&place) == 0
                and not place.flags & CHUNK_SHARES_UNIT
                and place.compressed_offset == chunk.place.compressed_offset
                and place.compressed_size == chunk.place.compressed_size):
            chunk.place = place
        else:
            chunk.state &= ~<uint32_t>(CHUNK_MINE | CHUNK_WANTED)
            blob.chunks.release(chunk.index)
    blob.chunks.wake()
    return 0
