# One blob: what is known of its chunks, which are here, and where the others come from.
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.counters cimport Counters
from nydusd.cache.blobfile cimport BlobFile
from nydusd.cache.chunkmap cimport ChunkMap
from nydusd.cache.fresh cimport FreshChunks
from nydusd.cache.plan cimport Chunk
from nydusd.cache.target cimport ReadTarget
from nydusd.cache.uses cimport Uses
from nydusd.rafs.blobmeta cimport BlobMeta, ChunkPlace
from nydusd.rafs.bootstrap cimport ChunkSpan

cdef enum:
    # of CachedBlob.counters
    COUNT_HITS = 0          # reads answered from the cache file
    COUNT_HIT_BYTES = 1
    COUNT_MISSES = 2        # reads answered by a fetch
    COUNT_REQUESTS = 3      # asked of the backend
    COUNT_BACKEND_BYTES = 4
    COUNT_PREFETCH_REQUESTS = 5     # of COUNT_REQUESTS
    COUNT_PREFETCH_BYTES = 6
    COUNT_KEPT_BYTES = 7    # written to the cache file
    COUNT_CORRUPT = 8       # chunks that did not pass their check
    COUNT_KEPT_CHUNKS = 9   # made ready by this process
    COUNT_WHOLE_HITS = 10   # of COUNT_MISSES: nothing was asked of the backend after all
    COUNT_PREFETCH_CHUNKS = 11      # in COUNT_PREFETCH_REQUESTS

cdef class CachedBlob:
    cdef readonly object info       # BlobInfo
    cdef readonly ChunkMap chunks
    cdef readonly BlobFile file     # None: nothing is kept (dummycache)
    cdef bint keeps                 # fetched chunks may go to `file`: there is one, and it is ours
    cdef bint tar                   # the blob is a tar: no chunk map, no CI array (tarfs)
    cdef uint64_t members_end       # end of the blob when its chunks are gzip members, else 0
    cdef object pages               # codec.pages.PageCipher of an encrypted cache file, else None
    cdef list worn                  # BlobMetas that were replaced: readers may be inside still
    cdef bint doubted               # the blob meta was fetched anew for a broken entry
    cdef readonly object reader     # BlobReader
    cdef readonly Counters counters
    cdef readonly bint compressed   # the file keeps stored bytes
    cdef readonly bint validate     # digests are checked, at fetch and at each read
    cdef readonly bint recheck      # no chunk map: what the file has counts when its digest matches
    cdef readonly object durable    # DurableRecord: what has reached the disk, or None
    cdef Uses uses                  # of a directory with a limit: chunks may be evicted; else None
    cdef bint direct                # ready chunks are answered straight from the file
    cdef FreshChunks fresh          # so are these of a file whose other chunks are checked; or None
    cdef uint64_t plain_end         # end of the plain blob, on a multiple of 4096; 0 = not known
    cdef BlobMeta meta              # set once, before `described`; None for v5
    cdef int described              # atomic: places of chunks can be told
    cdef object describe            # makes `meta`; None for v5
    cdef object lock                # one thread at a time runs `describe`
    cdef object cipher              # codec.cipher.BlobCipher of an encrypted blob, else None
    cdef object digests             # owner of digest_table
    cdef const uint8_t *digest_table    # borrowed from `digests`; 32 bytes a chunk, or NULL
    cdef bint disk_reported         # a failure to keep bytes has been logged
    cdef bint disk_refuses          # the last attempt to keep bytes failed; guarded by the GIL
    cdef readonly uint64_t buffered     # fetched bytes not dropped yet; guarded by the GIL
    cdef int users                  # fetches that run; guarded by the GIL
    cdef bint closing               # close() was called; guarded by the GIL

    # the digest to hold chunk *index* against: *own*, its bootstrap's, else the digest table's
    cdef const uint8_t *digest_of(self, uint32_t index, const uint8_t *own) noexcept nogil
    # whether chunk *index* at *place* is on local disk; what a file promises is looked for once
    cdef bint has(self, uint32_t index, const ChunkPlace *place) noexcept nogil
    # the same for who has the chunk's claim
    cdef bint has_claimed(self, uint32_t index, const ChunkPlace *place) noexcept nogil
    # remember that the chunk is used now, where chunks may be evicted
    cdef void note_use(self, uint32_t index, const ChunkPlace *place) noexcept nogil
    # evictions so far; bytes that were copied since are chunk *index*'s if `is_unmoved` afterwards
    cdef uint64_t evictions(self) noexcept nogil
    cdef bint is_unmoved(self, uint32_t index, uint64_t evictions) noexcept nogil
    # READ_DONE the chunk is here, READ_MISSING, READ_CLAIMED
    cdef int look(self, const ChunkSpan *span, bint impatient) noexcept nogil
    # 0, -EIO the span and the image do not agree or the chunk is absurd
    cdef int place(self, const ChunkSpan *span, ChunkPlace *out) noexcept nogil
    cdef void bound_member(self, ChunkPlace *place) noexcept nogil
    cdef int check_place(self, const ChunkPlace *place) noexcept nogil
    # 0, -ENODATA the file was cut: the blob is not trusted any more, -EAGAIN the chunk was evicted
    # while it was copied, -EIO
    cdef int answer(self, const ChunkSpan *span, ReadTarget *target) noexcept nogil
    # the cache file was cut: nothing of it counts, nothing is written to it
    cdef void lose_file(self) noexcept nogil
    # the CI array is there when this returns; raises when it cannot be had
    cdef int need_description(self) except -1
    # the file of the CI array was cut, or has a broken entry: get it anew; whether that was done
    cdef bint renew_description(self) except -1
    cdef int note_disk(self, int code) except -1
    # whether fetched bytes are likely to be kept: what nobody waits for is not fetched else
    cdef bint is_keeping(self) noexcept
    # around every use of reader and files by a fetch; `enter` raises once the blob is closed
    cdef int enter(self) except -1
    cdef int leave(self) except -1
    cdef int shut(self) except -1
