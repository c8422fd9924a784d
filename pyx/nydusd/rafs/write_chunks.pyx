"""All chunks that an image under construction knows, and which files refer to them.

A chunk is looked up by digest and plain size: what is known is referred to, what is new gets the
next place in the plain blob at once and its place in the stored blob when it has been compressed.
Records are kept as they stand on disk. Not for several threads at a time.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, qsort, realloc
from libc.string cimport memcmp, memcpy, memset

from nydusd.rafs.bootstrap cimport CHUNK_COMPRESSED, CHUNK_HAS_CRC
from nydusd.rafs.ondisk_blob cimport (
    CI_ENTRY_V1_SIZE,
    CI_STORED_OFFSET_MASK,
    CI_V1_PLAIN_OFFSET_MASK,
    CI_V1_PLAIN_SIZE_HIGH_SHIFT,
    CI_V1_SIZE_LOW_SHIFT,
    CI_V1_STORED_SIZE_HIGH_SHIFT,
    CiEntryV1,
)
from nydusd.rafs.ondisk_v5 cimport ChunkRecord
from nydusd.rafs.write_tree cimport TreeNode

from nydusd.base.errors import BuildError

cdef enum:
    OWN_CHUNKS_MAX = 0xffffff       # chunk indexes end at 0xfffffe
    CI_SIZE_LOW_BITS = 20
    DIGEST_SIZE = 32


cdef struct SortedChunk:
    const ChunkRecord *record
    uint64_t turn                   # of its last use: a later one replaces an equal earlier one


cdef int compare_chunks(const void *left, const void *right) noexcept nogil:
    cdef const SortedChunk *a = <const SortedChunk *>left
    cdef const SortedChunk *b = <const SortedChunk *>right
    cdef int order = memcmp(a.record.digest, b.record.digest, DIGEST_SIZE)
    if order:
        return order
    if a.record.blob_index != b.record.blob_index:
        return -1 if a.record.blob_index < b.record.blob_index else 1
    return -1 if a.turn < b.turn else (1 if a.turn > b.turn else 0)


@cython.final
cdef class ChunkTable:
    """Chunks and references of one image; own chunks lie on multiples of *alignment* (plain)."""

    def __cinit__(self, uint32_t alignment):
        self.alignment = alignment
        self.known = {}
        self.own_blob_index = -1

    def __dealloc__(self):
        free(self.own)
        free(self.references)
        free(self.records)

    cdef int grow_records(self) except -1:
        cdef size_t room
        cdef void *grown
        if self.record_count == self.record_room:
            room = self.record_room * 2 if self.record_room else 1024
            grown = realloc(self.records, room * sizeof(ChunkRecord))
            if grown == NULL:
                raise MemoryError
            self.records = <ChunkRecord *>grown
            self.record_room = room
        return 0

    cdef int grow_references(self, size_t more) except -1:
        cdef size_t room
        cdef void *grown
        if more > self.reference_room - self.reference_count:
            room = self.reference_room * 2 if self.reference_room else 1024
            while more > room - self.reference_count:
                room *= 2
            grown = realloc(self.references, room * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            self.references = <uint32_t *>grown
            self.reference_room = room
        return 0

    cdef int grow_own(self) except -1:
        cdef size_t room
        cdef void *grown
        if self.own_count == self.own_room:
            room = self.own_room * 2 if self.own_room else 1024
            grown = realloc(self.own, room * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            self.own = <uint32_t *>grown
            self.own_room = room
        return 0

    cdef int check_references(self, TreeNode node, uint32_t chunk_size) except -1:
        cdef uint64_t wanted = (node.size + chunk_size - 1) // chunk_size
        if node.chunk_count != wanted:
            raise AssertionError(f"{node!r} has {node.chunk_count} chunks, it needs {wanted}")
        if wanted and (
            node.first_reference > self.reference_count
            or wanted > self.reference_count - node.first_reference
        ):
            raise AssertionError(f"{node!r} refers to chunks that do not exist")
        return 0

    cdef uint32_t append(self, const ChunkRecord *record) except? 0xffffffff:
        self.grow_records()
        self.records[self.record_count] = record[0]
        self.record_count += 1
        return <uint32_t>(self.record_count - 1)

    @property
    def reference_total(self):
        """References so far: `TreeNode.first_reference` of the file whose chunks come next."""
        return self.reference_count

    @property
    def own_chunk_count(self):
        """Chunks of the own blob so far."""
        return self.own_count

    def add_record(self, const uint8_t[::1] record, bint first_choice=False):
        """The id of a chunk that exists already: *record* is its 80 bytes on disk.

        Later chunks of equal digest and size refer to it, unless one is known already and it is
        not the *first_choice*.
        """
        cdef bytes digest
        cdef uint32_t number
        if record.shape[0] != sizeof(ChunkRecord):
            raise ValueError(f"a chunk record of {record.shape[0]} bytes")
        number = self.append(<const ChunkRecord *>&record[0])
        digest = self.records[number].digest[:DIGEST_SIZE]
        if first_choice:
            self.known[digest] = number
        else:
            self.known.setdefault(digest, number)
        return number

    def record(self, uint32_t number):
        """The 80 bytes of chunk *number*; `IndexError` when there is none."""
        if number >= self.record_count:
            raise IndexError(f"chunk {number} of {self.record_count}")
        return (<const char *>&self.records[number])[:sizeof(ChunkRecord)]

    def find(self, bytes digest, uint32_t size):
        """The id of the known chunk of this digest and plain size, or None."""
        number = self.known.get(digest)
        if number is None or self.records[<uint32_t>number].uncompressed_size != size:
            return None
        return number

    def refer(self, uint32_t number):
        """Let the current file's next chunk be the known chunk *number*."""
        if number >= self.record_count:
            raise IndexError(f"chunk {number} of {self.record_count}")
        self.grow_references(1)
        self.references[self.reference_count] = number
        self.reference_count += 1

    def claim_own_blob(self, int blob_index):
        """Give the own blob its index in the blob table, before its first chunk is added."""
        self.own_blob_index = blob_index

    def add_chunks(self, list digests, list sizes, list crcs=None):
        """Refer to these chunks, in order; the positions of those that are new, to be stored.

        *sizes* are plain bytes, *crcs* CRC-32C of the plain bytes (0 and None: not recorded).
        """
        cdef list new = []
        cdef Py_ssize_t position
        cdef ChunkRecord record
        cdef uint32_t number, size
        cdef bytes digest
        self.grow_references(len(digests))
        for position in range(len(digests)):
            digest = digests[position]
            size = sizes[position]
            found = self.known.get(digest)
            if found is not None and self.records[<uint32_t>found].uncompressed_size == size:
                number = found
            else:
                if len(digest) != DIGEST_SIZE:
                    raise ValueError(f"a digest of {len(digest)} bytes")
                if self.own_count >= OWN_CHUNKS_MAX:
                    raise BuildError(
                        f"more than {OWN_CHUNKS_MAX} chunks in one blob: take larger chunks"
                    )
                memset(&record, 0, sizeof(record))
                memcpy(record.digest, <const char *>digest, DIGEST_SIZE)
                record.blob_index = <uint32_t>self.own_blob_index
                record.uncompressed_size = size
                record.uncompressed_offset = self.uncompressed_end
                record.index = <uint32_t>self.own_count
                if crcs is not None and crcs[position]:
                    record.flags = CHUNK_HAS_CRC
                    record.crc32 = crcs[position]
                self.uncompressed_end += (
                    (size + self.alignment - 1) // self.alignment * self.alignment
                )
                number = self.append(&record)
                self.grow_own()
                self.own[self.own_count] = number
                self.own_count += 1
                self.known.setdefault(digest, number)
                new.append(position)
            self.references[self.reference_count] = number
            self.reference_count += 1
        return new

    def store_plain(self, size_t count):
        """The next *count* own chunks are stored as they are, one behind the other."""
        cdef size_t i
        cdef ChunkRecord *record
        if count > self.own_count - self.stored_count:
            raise IndexError("more chunks stored than added")
        for i in range(self.stored_count, self.stored_count + count):
            record = &self.records[self.own[i]]
            record.compressed_offset = self.compressed_end
            record.compressed_size = record.uncompressed_size
            self.compressed_end += record.uncompressed_size
        self.stored_count += count

    def store_compressed(self, list sizes):
        """The next own chunks are stored in *sizes* bytes each; a size of 0 means as they are."""
        cdef ChunkRecord *record
        cdef uint32_t size
        cdef object stored
        if <size_t>len(sizes) > self.own_count - self.stored_count:
            raise IndexError("more chunks stored than added")
        for stored in sizes:
            record = &self.records[self.own[self.stored_count]]
            size = stored
            record.compressed_offset = self.compressed_end
            if size:
                record.flags |= CHUNK_COMPRESSED
                record.compressed_size = size
            else:
                record.compressed_size = record.uncompressed_size
            self.compressed_end += record.compressed_size
            self.stored_count += 1

    def digests(self):
        """The digests of the own blob's chunks, 32 bytes each, in chunk order."""
        cdef bytearray out = bytearray(self.own_count * DIGEST_SIZE)
        cdef uint8_t *at = <uint8_t *>out
        cdef size_t i
        for i in range(self.own_count):
            memcpy(at + i * DIGEST_SIZE, self.records[self.own[i]].digest, DIGEST_SIZE)
        return bytes(out)

    def file_digests(self, uint64_t first, uint32_t count):
        """Digests of *count* references from *first*, joined: what a v5 file's digest covers."""
        cdef bytearray out = bytearray(<size_t>count * DIGEST_SIZE)
        cdef uint8_t *at = <uint8_t *>out
        cdef uint32_t i
        if first > self.reference_count or count > self.reference_count - first:
            raise IndexError(f"references {first} + {count} of {self.reference_count}")
        for i in range(count):
            memcpy(at + i * DIGEST_SIZE, self.records[self.references[first + i]].digest,
                   DIGEST_SIZE)
        return bytes(out)

    def ci_array(self):
        """The own blob's CI array, entries of 16 bytes (rafs-format: CI entry V1)."""
        cdef bytearray out = bytearray(self.own_count * CI_ENTRY_V1_SIZE)
        cdef uint8_t *at = <uint8_t *>out
        cdef CiEntryV1 entry
        cdef const ChunkRecord *record
        cdef uint64_t plain, stored, low = (1 << CI_SIZE_LOW_BITS) - 1
        cdef size_t i
        for i in range(self.own_count):
            record = &self.records[self.own[i]]
            plain = record.uncompressed_size - 1
            stored = record.compressed_size - 1
            entry.plain = (
                (record.uncompressed_offset & CI_V1_PLAIN_OFFSET_MASK)
                | ((plain & low) << CI_V1_SIZE_LOW_SHIFT)
                | ((plain >> CI_SIZE_LOW_BITS) << CI_V1_PLAIN_SIZE_HIGH_SHIFT)
            )
            entry.stored = (
                (record.compressed_offset & CI_STORED_OFFSET_MASK)
                | ((stored & low) << CI_V1_SIZE_LOW_SHIFT)
                | ((stored >> CI_SIZE_LOW_BITS) << CI_V1_STORED_SIZE_HIGH_SHIFT)
            )
            memcpy(at + i * CI_ENTRY_V1_SIZE, &entry, CI_ENTRY_V1_SIZE)
        return bytes(out)

    def chunk_table(self, list nodes, uint32_t chunk_size):
        """The chunk table of v6: one record for each (digest, blob) that *nodes* refer to, sorted.

        Each tells the file offset of its last use.
        """
        cdef TreeNode node
        cdef SortedChunk *sorted_chunks
        cdef uint64_t *turns
        cdef uint64_t turn = 0
        cdef size_t i, used = 0, kept = 0
        cdef uint32_t number, k
        cdef bytearray out
        cdef uint8_t *at
        sorted_chunks = NULL
        turns = <uint64_t *>realloc(NULL, (self.record_count + 1) * sizeof(uint64_t))
        try:
            if turns == NULL:
                raise MemoryError
            memset(turns, 0, self.record_count * sizeof(uint64_t))
            for node in nodes:
                if node.chunk_count and (
                    node.first_reference > self.reference_count
                    or node.chunk_count > self.reference_count - node.first_reference
                ):
                    raise IndexError(f"chunks of {node!r}")
                for k in range(node.chunk_count):
                    number = self.references[node.first_reference + k]
                    turn += 1
                    used += turns[number] == 0
                    turns[number] = turn
                    self.records[number].file_offset = <uint64_t>k * chunk_size
            sorted_chunks = <SortedChunk *>realloc(NULL, (used + 1) * sizeof(SortedChunk))
            if sorted_chunks == NULL:
                raise MemoryError
            used = 0
            for i in range(self.record_count):
                if turns[i]:
                    sorted_chunks[used].record = &self.records[i]
                    sorted_chunks[used].turn = turns[i]
                    used += 1
            qsort(sorted_chunks, used, sizeof(SortedChunk), compare_chunks)
            out = bytearray(used * sizeof(ChunkRecord))
            at = <uint8_t *>out
            for i in range(used):
                if i + 1 < used and same_chunk(
                    sorted_chunks[i].record, sorted_chunks[i + 1].record
                ):
                    continue
                memcpy(at + kept * sizeof(ChunkRecord), sorted_chunks[i].record,
                       sizeof(ChunkRecord))
                kept += 1
            del out[kept * sizeof(ChunkRecord):]
            return out
        finally:
            free(sorted_chunks)
            free(turns)


cdef bint same_chunk(const ChunkRecord *a, const ChunkRecord *b) noexcept nogil:
    return a.blob_index == b.blob_index and memcmp(a.digest, b.digest, DIGEST_SIZE) == 0
