"""Which chunks a range of a plain blob is made of, for carriers that ask by blob and not by file.

Chunks of a CI array lie in the order of their numbers (rafs-format: blob meta); that of a hostile
image may not, and is refused where it is met. Any thread, with the GIL.
"""

from libc.stdint cimport uint32_t, uint64_t

from nydusd.cache.cached_blob cimport CachedBlob
from nydusd.rafs.blobmeta cimport ChunkPlace

from nydusd.base.errors import BlobCorrupt
from nydusd.rafs.records import Span


cdef int place_of(CachedBlob blob, uint32_t index, ChunkPlace *out) except -1:
    if blob.meta is None or blob.meta.chunk(index, out) != 0 or blob.check_place(out) != 0:
        raise BlobCorrupt(f"blob {blob.info.blob_id}: the entry of chunk {index} is broken")
    return 0


cdef uint32_t first_chunk(CachedBlob blob, uint64_t offset) except? 0:
    """The first chunk that ends after *offset*; the count when there is none."""
    cdef ChunkPlace place
    cdef uint32_t low = 0
    cdef uint32_t high = blob.chunks.count
    cdef uint32_t middle
    while low < high:
        middle = low + (high - low) // 2
        place_of(blob, middle, &place)
        if place.uncompressed_offset + place.uncompressed_size <= offset:
            low = middle + 1
        else:
            high = middle
    return low


def chunks_in_range(CachedBlob blob, uint32_t blob_index, uint64_t offset, uint64_t size):
    """Spans of the whole chunks that have bytes of the range, in order; [] when none has.

    Gets the CI array when it is not there. `BlobCorrupt`, `BackendError`.
    """
    cdef ChunkPlace place
    cdef uint64_t end
    cdef uint64_t filled
    cdef uint32_t index
    cdef list spans = []
    blob.enter()
    try:
        blob.need_description()
        if blob.meta is None:
            raise BlobCorrupt(f"blob {blob.info.blob_id} has no table of its chunks")
        end = offset + size if size <= (<uint64_t>-1) - offset else <uint64_t>-1
        index = first_chunk(blob, offset)
        filled = 0
        while index < blob.chunks.count:
            place_of(blob, index, &place)
            if place.uncompressed_offset >= end:
                break
            if place.uncompressed_offset < filled:
                raise BlobCorrupt(
                    f"blob {blob.info.blob_id}: chunk {index} lies before the one before it")
            filled = place.uncompressed_offset + place.uncompressed_size
            if place.uncompressed_size:
                spans.append(Span(0, blob_index, index, 0, place.uncompressed_size,
                                  place.uncompressed_size, place.uncompressed_offset, 0, 0, 0, 0,
                                  None))
            index += 1
    finally:
        blob.leave()
    return spans
