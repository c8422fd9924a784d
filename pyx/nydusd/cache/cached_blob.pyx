"""One blob of an image: its chunks, which of them are on local disk, where the others come from.

Shared by every mount that uses the blob (cache.pool). Knows no backend's kind and no inode. The
side without the GIL answers what is here; `cache.fetch` gets what is not. Any thread.
"""

import contextlib
import logging
import os
import threading

from libc.errno cimport EAGAIN, EINVAL, EIO, ENODATA
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

cimport cython

from nydusd.base.counters cimport Counters
from nydusd.cache.blobfile cimport BlobFile
from nydusd.cache.chunkmap cimport ChunkMap
from nydusd.cache.fresh cimport FreshChunks
from nydusd.cache.recent_units cimport forget
from nydusd.cache.target cimport READ_CLAIMED, READ_DONE, READ_MISSING, ReadTarget
from nydusd.cache.uses cimport Uses
from nydusd.rafs.blobmeta cimport CHUNK_SHARES_UNIT, BlobMeta, ChunkPlace
from nydusd.rafs.bootstrap cimport (
    CHUNK_ENCRYPTED, SPAN_DIRECT, SPAN_PLACED, ChunkSpan,
)

from nydusd.base.errors import BackendError
from nydusd.rafs.blobs import BlobFeature, is_gzip_members


cdef extern from *:
    """
    static inline int described_load(const int *p)
        { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
    static inline void described_store(int *p, int v)
        { __atomic_store_n(p, v, __ATOMIC_RELEASE); }
    """
    int described_load(const int *) noexcept nogil
    void described_store(int *, int) noexcept nogil

cdef enum:
    DIGEST_BYTES = 32
    PAGE_BYTES = 4096
    # Chunks are at most 16 MiB (rafs-format: superblock, chunk size); stored bytes may be a little
    # more (encryption, the upper bound of eStargz). Hostile sizes are refused, not allocated.
    PLAIN_BYTES_MAX = 1 << 24
    STORED_BYTES_MAX = (1 << 24) + (1 << 20)
    # Of a gzip member of n bytes: header, trailer and reserve; 5 bytes a deflate block that is
    # stored as it is (spec, legacy eStargz).
    GZIP_FRAME_BYTES = 10 + 8 + 128
    DEFLATE_BLOCK_BYTES = 16384
    RENEWALS_MAX = 8        # of one blob's CI array while it is open; each keeps its predecessor

logger = logging.getLogger("nydusd")

COUNTER_NAMES = (
    "hits", "hit_bytes", "misses", "backend_requests", "backend_bytes", "prefetch_requests",
    "prefetch_bytes", "kept_bytes", "corrupt_chunks", "kept_chunks",
    "whole_hits", "prefetch_chunks",
)


cdef void place_in_tar(const ChunkSpan *span, ChunkPlace *out) noexcept nogil:
    """A stretch of a tar as if it were a chunk that ends where the read ends."""
    memset(out, 0, sizeof(ChunkPlace))
    out.compressed_offset = out.uncompressed_offset = span.uncompressed_offset
    out.compressed_size = out.uncompressed_size = span.offset + span.length


@cython.final
cdef class CachedBlob:
    """The blob that *info* describes, read through *reader*.

    *file* is None when nothing is kept. *describe* makes the `BlobMeta` (v6) when it is first
    needed, unless *meta* has it already; both None: places come with the spans (v5). *digests*: the
    chunk digest table, or empty. *cipher*: of an encrypted blob; *pages*: of an encrypted file. The
    blob closes file, reader and *durable*.
    """

    def __cinit__(self, info, reader, ChunkMap chunks, BlobFile file, *, describe=None,
                  BlobMeta meta=None, bytes digests=b"", cipher=None, pages=None,
                  bint compressed=False, bint validate=False, bint recheck=False, durable=None,
                  Uses uses=None):
        self.info = info
        self.reader = reader
        self.chunks = chunks
        self.file = file
        self.counters = Counters(*COUNTER_NAMES)
        self.compressed = compressed
        self.validate = validate
        self.recheck = recheck
        self.durable = durable
        self.uses = uses if durable is not None else None
        self.tar = bool(info.features & BlobFeature.TARFS)
        self.keeps = file is not None and not self.tar
        self.pages = pages
        self.direct = (file is not None and not (compressed or validate) and pages is None
                       and file.size > 0)
        self.fresh = None
        if (self.keeps and validate and pages is None and not (compressed or recheck)
                and file.size > 0):
            with contextlib.suppress(OSError):  # the kernel does not tell of the writes of others
                self.fresh = FreshChunks(file.fd)
        self.members_end = (info.data_size or reader.size()) if is_gzip_members(info) else 0
        self.worn = []
        self.doubted = False
        self.plain_end = (info.uncompressed_size + PAGE_BYTES - 1) // PAGE_BYTES * PAGE_BYTES
        self.describe = describe
        self.meta = meta
        self.described = describe is None or meta is not None
        self.lock = threading.Lock()
        self.cipher = cipher
        self.digests = digests
        self.digest_table = NULL
        if digests:
            if <uint64_t>len(digests) < <uint64_t>chunks.count * DIGEST_BYTES:
                raise ValueError("the digest table is shorter than the chunks")
            self.digest_table = <const uint8_t *><const char *>self.digests
        self.disk_reported = self.disk_refuses = False

    cdef int look(self, const ChunkSpan *span, bint impatient) noexcept nogil:
        cdef ChunkPlace place
        # What cannot be is missing too: the fetching side says what is wrong with it, and logs it.
        if not described_load(&self.described) or self.place(span, &place) != 0:
            return READ_MISSING
        if self.tar:
            return READ_DONE if self.direct and self.chunks.is_ready(0) else READ_MISSING
        if ((self.direct or self.fresh is not None and self.fresh.vouches(
                span.chunk_index, &place, self.digest_of(span.chunk_index, span.digest)))
                and self.has(span.chunk_index, &place)):
            self.note_use(span.chunk_index, &place)
            return READ_DONE
        if not impatient and self.chunks.is_claimed(span.chunk_index):
            return READ_CLAIMED
        return READ_MISSING

    cdef const uint8_t *digest_of(self, uint32_t index, const uint8_t *own) noexcept nogil:
        cdef const uint8_t *found
        cdef uint32_t i
        if own != NULL or self.digest_table == NULL or index >= self.chunks.count:
            return own
        found = self.digest_table + <uint64_t>index * DIGEST_BYTES
        for i in range(DIGEST_BYTES):
            if found[i] != 0:
                return found
        return NULL         # the table does not tell

    cdef bint has(self, uint32_t index, const ChunkPlace *place) noexcept nogil:
        cdef bint found
        if self.chunks.is_ready(index):
            return True
        if self.file is None or not self.chunks.is_promised(index):
            return False
        if self.uses is None:
            return self.has_claimed(index, place)
        # What is looked for must not be evicted between the look and its outcome.
        if not self.chunks.claim(index):
            return False
        found = self.has_claimed(index, place)
        self.chunks.release(index)
        self.chunks.wake()
        return found

    cdef bint has_claimed(self, uint32_t index, const ChunkPlace *place) noexcept nogil:
        if self.chunks.is_ready(index):
            return True
        if self.file is None or not self.chunks.is_promised(index):
            return False
        if not (self.file.holds(place.compressed_offset, place.compressed_size)
                if self.compressed
                else self.file.holds(place.uncompressed_offset, place.uncompressed_size)):
            return False
        self.chunks.trust(index)
        return True

    cdef void note_use(self, uint32_t index, const ChunkPlace *place) noexcept nogil:
        if self.uses is None:
            return
        if self.compressed:
            self.uses.note(index, place.compressed_offset, place.compressed_size)
        else:
            self.uses.note(index, place.uncompressed_offset, place.uncompressed_size)

    cdef uint64_t evictions(self) noexcept nogil:
        return 0 if self.uses is None else self.uses.seen()

    cdef bint is_unmoved(self, uint32_t index, uint64_t evictions) noexcept nogil:
        return self.uses is None or (
            self.chunks.is_ready(index) and self.uses.seen() == evictions)

    cdef int place(self, const ChunkSpan *span, ChunkPlace *out) noexcept nogil:
        cdef int rc
        if self.tar != (span.flags & SPAN_DIRECT != 0):
            return -EIO
        if self.tar:
            place_in_tar(span, out)
            return self.check_place(out)
        if span.chunk_index >= self.chunks.count:
            return -EIO
        if span.flags & SPAN_PLACED:
            out.compressed_offset = span.compressed_offset
            out.uncompressed_offset = span.uncompressed_offset
            out.compressed_size = span.compressed_size
            out.uncompressed_size = span.uncompressed_size
            out.flags = span.chunk_flags
            out.crc32 = span.crc32
            out.context_index = out.context_offset = out.context_size = 0
            if self.members_end:
                self.bound_member(out)
        else:
            rc = self.meta.chunk(span.chunk_index, out) if self.meta is not None else -EIO
            if rc != 0:
                return -EIO if rc == -EINVAL else rc
            if out.uncompressed_offset != span.uncompressed_offset:
                return -EIO
        if (span.offset > out.uncompressed_size
                or span.length > out.uncompressed_size - span.offset):
            return -EIO
        return self.check_place(out)

    cdef void bound_member(self, ChunkPlace *place) noexcept nogil:
        """How far the gzip member of a chunk can reach; its record may say 0, or more."""
        cdef uint64_t bound = place.uncompressed_size
        bound += GZIP_FRAME_BYTES + 5 * (1 + bound // DEFLATE_BLOCK_BYTES)
        if 0 < place.compressed_size < bound:
            bound = place.compressed_size
        if place.compressed_offset >= self.members_end:
            bound = 0
        elif bound > self.members_end - place.compressed_offset:
            bound = self.members_end - place.compressed_offset
        place.compressed_size = <uint32_t>bound

    cdef int check_place(self, const ChunkPlace *place) noexcept nogil:
        """-EIO for sizes that no chunk has and offsets that leave the numbers."""
        if place.flags & CHUNK_ENCRYPTED and self.cipher is None:
            return -EIO
        if place.flags & CHUNK_SHARES_UNIT and (
                self.meta is None or place.context_offset > place.context_size
                or place.uncompressed_size > place.context_size - place.context_offset):
            return -EIO
        if place.uncompressed_size > PLAIN_BYTES_MAX or place.compressed_size > STORED_BYTES_MAX:
            return -EIO
        if place.uncompressed_offset >> 62 or place.compressed_offset >> 62:
            return -EIO
        if self.plain_end and (
                place.uncompressed_offset > self.plain_end
                or place.uncompressed_size > self.plain_end - place.uncompressed_offset):
            return -EIO
        return 0

    cdef int answer(self, const ChunkSpan *span, ReadTarget *target) noexcept nogil:
        cdef uint64_t offset = span.uncompressed_offset + span.offset
        cdef bint copy_only = target.copy_only
        cdef uint64_t seen
        cdef int rc
        if self.uses is None:
            rc = self.file.read(offset, span.length, target)
        else:
            # A segment in the mapping could turn into a hole before it is sent.
            seen = self.uses.seen()
            target.copy_only = True
            rc = self.file.read(offset, span.length, target)
            target.copy_only = copy_only
            if rc == 0 and not self.is_unmoved(span.chunk_index, seen):
                return -EAGAIN
        if rc == -ENODATA:
            self.lose_file()
        return rc

    cdef void lose_file(self) noexcept nogil:
        # Not extended or written again: other daemons of the directory share the chunk map, and
        # would read the holes of a file that somebody cut and we made long again.
        self.file.stop_writing()
        self.chunks.distrust()

    cdef int need_description(self) except -1:
        cdef bint mine = False
        if described_load(&self.described):
            return 0
        with self.lock:
            if not self.described:
                self.meta = self.describe(self.reader)
                described_store(&self.described, 1)
                mine = True
        if mine:
            self.describe.finish()      # a disk's time, which who waits for the lock is spared
        return 0

    cdef bint renew_description(self) except -1:
        with self.lock:
            if self.meta is None or self.describe is None or len(self.worn) >= RENEWALS_MAX:
                return False
            if self.meta.is_damaged():
                logger.warning("blob %s: the file of its table of chunks was cut: it is fetched "
                               "again", self.info.blob_id)
            elif self.doubted:
                return False        # the blob itself is broken there
            self.doubted = True
            meta = self.describe(self.reader, fresh=True)
            self.worn.append(self.meta)
            self.meta = meta
            self.describe.finish()
        return True

    cdef int note_disk(self, int code) except -1:
        """Say once that fetched bytes could not be kept; reads go on without."""
        if not self.disk_reported:
            self.disk_reported = True
            logger.warning("blob %s: fetched data cannot be kept in %s: %s; reads go on",
                           self.info.blob_id, self.file.path, os.strerror(-code))
        return 0

    cdef bint is_keeping(self) noexcept:
        return self.keeps and self.file.keeps and not self.disk_refuses

    cdef int enter(self) except -1:
        if self.closing:
            raise BackendError(f"blob {self.info.blob_id} is not in use any more")
        self.users += 1
        return 0

    cdef int leave(self) except -1:
        self.users -= 1
        if self.closing and self.users == 0:
            self.shut()
        return 0

    def close(self):
        """Close reader, files and mappings once the last fetch has ended; nobody reads any more.

        A fetch outlives its read: it writes the cache file after it has answered. A descriptor
        closed under it could be another file's by then.
        """
        if not self.closing:
            self.closing = True
            if self.users == 0:
                self.shut()

    cdef int shut(self) except -1:
        self.reader.close()
        forget(self.lock)
        forget(self.counters)
        if self.durable is not None:
            self.durable.close()
        self.chunks.close()
        if self.describe is not None:
            described_store(&self.described, 0)
            self.meta = None
            self.worn.clear()
        if self.file is not None:
            if self.uses is not None:
                self.file.note_time()
            self.file.close()
        return 0

    def load_description(self):
        """Get the CI array now instead of at the first read; raises when it cannot be had."""
        self.enter()
        try:
            self.need_description()
        finally:
            self.leave()

    @property
    def tracks_uses(self):
        """Whether chunks may be evicted."""
        return self.uses is not None

    @property
    def complete(self):
        """Whether every chunk is on local disk."""
        return self.file is not None and self.chunks.ready_count() == self.chunks.count
