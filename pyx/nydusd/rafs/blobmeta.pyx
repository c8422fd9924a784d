"""A blob's CI array: chunk number to where the chunk lies, compressed and plain.

Works on the plain array, in a mapping of the cache's `.blob.meta` or of bytes; fetching and
decoding it is the cache's business. Every entry is checked when it is used, so opening takes the
same time for one chunk as for a million. Any thread, no GIL. Rules: docs/formats/blobs.md.
"""

cimport cython
from libc.errno cimport EINVAL, EIO
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.bootstrap cimport (
    CHUNK_BATCH, CHUNK_COMPRESSED, CHUNK_ENCRYPTED, CHUNK_HAS_CRC,
)
from nydusd.rafs.ondisk_blob cimport (
    CI_BATCH, CI_CHUNKS_MAX, CI_COMPRESSED, CI_ENCRYPTED, CI_ENTRY_V1_SIZE, CI_ENTRY_V2_SIZE,
    CI_HAS_CRC, CI_HEADER_MAGIC, CI_HEADER_SIZE, CI_PLAIN_ALIGNMENT, CI_STORED_OFFSET_MASK,
    CI_V1_PLAIN_OFFSET_MASK, CI_V1_PLAIN_SIZE_HIGH_SHIFT, CI_V1_SIZE_LOW_SHIFT,
    CI_V1_STORED_SIZE_HIGH_SHIFT, CI_V2_FLAGS_SHIFT, CI_V2_PLAIN_SIZE_SHIFT,
    CI_V2_STORED_SIZE_SHIFT, CI_ZRAN, BatchContext, CiEntryV1, CiEntryV2, CiHeader, ZranContext,
)
from nydusd.rafs.zran_table cimport ZranStretch, ZranTable

from nydusd.base.record import NamedTuple

from nydusd.base.errors import BlobCorrupt, check
from nydusd.rafs.blobs import BlobFeature, is_gzip_members

HEADER_SIZE = 4096              # bytes, behind the stored CI array

cdef enum:
    PLAIN_OFFSET_UNIT_BITS = 12     # of V2 entries
    SIZE_LOW_MASK = 0xfffff         # V1: low 20 bits of a size - 1
    SIZE_HIGH_MASK = 0xf            # V1: the next 4 bits
    SIZE_HIGH_SHIFT = 20
    SIZE_MASK_V2 = 0xffffff
    CONTEXT_INDEX_SHIFT = 32        # V2, word 2 of a batch or zran chunk
    CIPHER_UNIT = 16                # shorter content is padded before it is encrypted
    CIPHER_PADDED = 18
    ZRAN_WINDOW_BYTES = 32768       # a context's dictionary, at most


class Place(NamedTuple):
    """The place of one chunk, for Python; terms: `ChunkPlace`."""

    compressed_offset: int
    uncompressed_offset: int
    compressed_size: int
    uncompressed_size: int
    flags: int  # CHUNK_*: 1 compressed, 0x10 has a CRC
    crc32: int


def plain_file_size(blob):
    """Length of a `.blob.meta` cache file: the plain array on whole pages, then the header."""
    pages = blob.ci_uncompressed_size + CI_PLAIN_ALIGNMENT - 1
    return pages - pages % CI_PLAIN_ALIGNMENT + CI_HEADER_SIZE


def plain_size_max(const uint8_t[::1] header, blob):
    """Most plain bytes that the CI array of *blob* can have, by its chunks and its *header*.

    Entries, then at most a context for each chunk, and a dictionary for each zran context.
    `ValueError` unless *header* has 4096 bytes.
    """
    cdef const CiHeader *found
    if header.shape[0] != CI_HEADER_SIZE:
        raise ValueError(f"a header of {header.shape[0]} bytes")
    found = <const CiHeader *>&header[0]
    entry = CI_ENTRY_V1_SIZE
    context = 0
    if blob.features & BlobFeature.CHUNK_INFO_V2:
        entry = CI_ENTRY_V2_SIZE
    if blob.features & BlobFeature.ZRAN:
        context = sizeof(ZranContext) + ZRAN_WINDOW_BYTES
    elif blob.features & BlobFeature.BATCH:
        context = sizeof(BatchContext)
    chunks = min(max(found.entries, blob.chunk_count), CI_CHUNKS_MAX)
    return chunks * entry + min(found.contexts_count, chunks) * context + CI_PLAIN_ALIGNMENT


def header_difference(const uint8_t[::1] header, blob):
    """What in a blob meta *header* is not as the blob table has it; None when it is *blob*'s."""
    cdef const CiHeader *found
    if header.shape[0] != CI_HEADER_SIZE:
        return f"it has {header.shape[0]} bytes"
    found = <const CiHeader *>&header[0]
    if found.magic != CI_HEADER_MAGIC or found.magic2 != CI_HEADER_MAGIC:
        return f"magic is {found.magic:#x}, {found.magic2:#x}"
    if found.entries != blob.chunk_count \
            and not blob.features & BlobFeature.IS_CHUNKDICT_GENERATED:
        return f"{found.entries} entries for {blob.chunk_count} chunks"
    if found.ci_compressor != blob.ci_compressor:
        return f"compressor is {found.ci_compressor}, not {int(blob.ci_compressor)}"
    if found.ci_offset != blob.ci_offset:
        return f"offset is {found.ci_offset}, not {blob.ci_offset}"
    if found.ci_compressed_size != blob.ci_compressed_size \
            or found.ci_uncompressed_size != blob.ci_uncompressed_size:
        return (f"sizes are {found.ci_compressed_size}/{found.ci_uncompressed_size}, not "
                f"{blob.ci_compressed_size}/{blob.ci_uncompressed_size}")
    if found.contexts_offset > found.ci_uncompressed_size \
            or found.contexts_size > found.ci_uncompressed_size - found.contexts_offset:
        return "contexts are outside the array"
    return None


def header_matches(const uint8_t[::1] header, blob):
    """Whether the 4096 bytes of *header* are *blob*'s; features may differ (merged images)."""
    return header_difference(header, blob) is None


@cython.final
cdef class BlobMeta:
    """The CI array of *blob*, at the start of *file*; `BlobCorrupt` when it is shorter.

    *header*: its blob meta header, which `header_matches`; without it there are no contexts.
    """

    def __cinit__(self, Mapping file, blob, const uint8_t[::1] header=None):
        cdef uint64_t needed
        cdef const CiHeader *found
        if header is not None and header.shape[0] == CI_HEADER_SIZE:
            found = <const CiHeader *>&header[0]
            self.contexts_offset = found.contexts_offset
            self.contexts_size = found.contexts_size
            self.contexts_count = found.contexts_count
        self.version2 = bool(blob.features & BlobFeature.CHUNK_INFO_V2)
        self.batches = bool(blob.features & BlobFeature.BATCH)
        self.encrypted = bool(blob.features & BlobFeature.ENCRYPTED)
        self.members = is_gzip_members(blob)
        if blob.features & BlobFeature.ZRAN:
            self.zran = ZranTable(file, self.contexts_offset, self.contexts_size,
                                  self.contexts_count, blob.data_size)
        needed = blob.chunk_count * (CI_ENTRY_V2_SIZE if self.version2 else CI_ENTRY_V1_SIZE)
        if needed and file.at(0, needed) == NULL:
            raise BlobCorrupt(
                f"blob {blob.blob_id}: the table of its {blob.chunk_count} chunks takes {needed} "
                f"bytes, {file.size} are there"
            )
        self.file = file
        self.count = blob.chunk_count
        self.chunk_size = blob.chunk_size
        self.compressed_end = blob.data_size
        self.uncompressed_end = (blob.uncompressed_size + CI_PLAIN_ALIGNMENT - 1) \
            // CI_PLAIN_ALIGNMENT * CI_PLAIN_ALIGNMENT

    cdef int chunk(self, uint32_t index, ChunkPlace *out) noexcept nogil:
        cdef int rc
        if index >= self.count:
            return -EINVAL
        rc = self.load_v2(index, out) if self.version2 else self.load_v1(index, out)
        if self.file.is_damaged():
            return -EIO
        if rc != 0:
            return rc
        if out.compressed_size == 0 \
                or out.uncompressed_size > self.chunk_size \
                or out.compressed_offset > self.compressed_end \
                or out.compressed_size > self.compressed_end - out.compressed_offset \
                or out.uncompressed_offset > self.uncompressed_end \
                or out.uncompressed_size > self.uncompressed_end - out.uncompressed_offset:
            return -EIO
        if not out.flags & (CHUNK_COMPRESSED | CHUNK_SHARES_UNIT) \
                and out.compressed_size != (stored_plain(out.uncompressed_size)
                                            if out.flags & CHUNK_ENCRYPTED
                                            else out.uncompressed_size):
            return -EIO
        return 0

    cdef bint is_damaged(self) noexcept nogil:
        return self.file.is_damaged()

    cdef int load_v1(self, uint32_t index, ChunkPlace *out) noexcept nogil:
        """Entry *index* of 16 bytes, taken apart but not checked."""
        cdef const CiEntryV1 *entry = <const CiEntryV1 *>self.file.at(
            <uint64_t>index * sizeof(CiEntryV1), sizeof(CiEntryV1))
        if entry == NULL:
            return -EIO
        out.uncompressed_offset = entry.plain & CI_V1_PLAIN_OFFSET_MASK
        out.uncompressed_size = size_v1(entry.plain, CI_V1_PLAIN_SIZE_HIGH_SHIFT)
        out.compressed_offset = entry.stored & CI_STORED_OFFSET_MASK
        out.compressed_size = size_v1(entry.stored, CI_V1_STORED_SIZE_HIGH_SHIFT)
        out.flags = CHUNK_COMPRESSED if out.compressed_size != out.uncompressed_size else 0
        if self.members:
            # The size is how far the member may reach, at most.
            out.flags = CHUNK_COMPRESSED
            if out.compressed_offset < self.compressed_end \
                    and out.compressed_size > self.compressed_end - out.compressed_offset:
                out.compressed_size = <uint32_t>(self.compressed_end - out.compressed_offset)
        out.crc32 = 0
        out.context_index = 0
        out.context_offset = 0
        out.context_size = 0
        return 0

    cdef int load_v2(self, uint32_t index, ChunkPlace *out) noexcept nogil:
        """Entry *index* of 24 bytes, taken apart."""
        cdef uint8_t flags
        cdef const CiEntryV2 *entry = <const CiEntryV2 *>self.file.at(
            <uint64_t>index * sizeof(CiEntryV2), sizeof(CiEntryV2))
        if entry == NULL:
            return -EIO
        flags = entry.plain >> CI_V2_FLAGS_SHIFT
        out.uncompressed_offset = <uint64_t><uint32_t>entry.plain << PLAIN_OFFSET_UNIT_BITS
        out.uncompressed_size = <uint32_t>(
            entry.plain >> CI_V2_PLAIN_SIZE_SHIFT & SIZE_MASK_V2) + 1
        out.compressed_offset = entry.stored & CI_STORED_OFFSET_MASK
        out.compressed_size = <uint32_t>(entry.stored >> CI_V2_STORED_SIZE_SHIFT)
        out.flags = CHUNK_COMPRESSED if flags & CI_COMPRESSED else 0
        out.crc32 = 0
        out.context_index = 0
        out.context_offset = 0
        out.context_size = 0
        if flags & CI_ZRAN:
            return self.load_zran(entry.data, out)
        if flags & CI_BATCH:
            return self.load_batch(entry.data, out)
        if flags & CI_ENCRYPTED:
            if not self.encrypted:
                return -EIO
            out.flags |= CHUNK_ENCRYPTED
        if flags & CI_HAS_CRC:
            out.flags |= CHUNK_HAS_CRC
            out.crc32 = <uint32_t>entry.data
            if out.crc32 == 0:
                return -EIO         # a writer leaves the flag away then
        return 0

    cdef int load_zran(self, uint64_t data, ChunkPlace *out) noexcept nogil:
        """What the context in *data*, word 2 of an entry, says of its chunk."""
        cdef ZranStretch unit
        if self.zran is None or self.zran.stretch(<uint32_t>(data >> 32), &unit) != 0:
            return -EIO
        out.context_index = <uint32_t>(data >> 32)
        out.context_offset = <uint32_t>data
        out.context_size = unit.out_size
        if out.context_offset > unit.out_size \
                or out.uncompressed_size > unit.out_size - out.context_offset:
            return -EIO
        # The entry has the chunk's own stretch of the stream, where nothing can begin to inflate.
        out.compressed_offset = unit.in_offset
        out.compressed_size = unit.in_size
        out.flags = CHUNK_COMPRESSED | CHUNK_ZRAN
        return 0

    cdef int load_batch(self, uint64_t data, ChunkPlace *out) noexcept nogil:
        """The batch of a chunk, whose number and the place in it are *data*.

        A batch holds less than a chunk may, and is not stored longer than it is, but for the
        padding of an encrypted one. Whether it is compressed follows from its sizes.
        """
        cdef uint32_t index = data >> CONTEXT_INDEX_SHIFT
        cdef const BatchContext *context
        if not self.batches or index >= self.contexts_count \
                or (<uint64_t>index + 1) * sizeof(BatchContext) > self.contexts_size:
            return -EIO
        context = <const BatchContext *>self.file.at(
            self.contexts_offset + <uint64_t>index * sizeof(BatchContext), sizeof(BatchContext))
        if context == NULL:
            return -EIO
        out.flags = CHUNK_BATCH
        if self.encrypted:
            out.flags |= CHUNK_ENCRYPTED
        out.compressed_size = context.compressed_size
        out.context_index = index
        out.context_offset = <uint32_t>data
        out.context_size = context.uncompressed_size
        if out.context_size > self.chunk_size \
                or out.context_offset > out.context_size \
                or out.uncompressed_size > out.context_size - out.context_offset \
                or out.compressed_size > (stored_plain(out.context_size) if self.encrypted
                                          else out.context_size):
            return -EIO
        return 0

    def place(self, uint32_t index):
        """The place of chunk *index*; `OSError` as `chunk` has it."""
        cdef ChunkPlace found
        check(self.chunk(index, &found), "chunk %d of a table of %d", index, self.count)
        return Place(found.compressed_offset, found.uncompressed_offset, found.compressed_size,
                     found.uncompressed_size, found.flags, found.crc32)


cdef inline uint32_t stored_plain(uint32_t size) noexcept nogil:
    """Stored bytes of *size* bytes that are encrypted and not compressed."""
    return size if size >= CIPHER_UNIT else CIPHER_PADDED


cdef inline uint32_t size_v1(uint64_t word, int high_shift) noexcept nogil:
    """The size in a word of a V1 entry, whose bits 20..23 are at *high_shift*."""
    cdef uint64_t low = word >> CI_V1_SIZE_LOW_SHIFT & SIZE_LOW_MASK
    cdef uint64_t high = word >> high_shift & SIZE_HIGH_MASK
    return <uint32_t>(low | high << SIZE_HIGH_SHIFT) + 1
