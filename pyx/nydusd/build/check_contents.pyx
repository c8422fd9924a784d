"""What an image says of one inode beside its attributes: records, chunks, targets, digests.

Each byte of metadata may belong to one thing only, so that all of it together is not more than the
file; where more is claimed, the walk ends. `check_tree` asks once for each inode, and for each
further name of one.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr

from nydusd.build.check_chunks cimport MetChunk, MetChunks
from nydusd.build.check_inode cimport chunk_fault, xattr_faults
from nydusd.build.check_trail cimport Trail
from nydusd.rafs.bootstrap cimport CHUNK_BATCH, SPAN_DIRECT, SPAN_HOLE, Bootstrap, ChunkSpan
from nydusd.rafs.names cimport KIND_DIRECTORY, KIND_REGULAR, KIND_SHIFT, KIND_SYMLINK
from nydusd.rafs.ondisk_v5 cimport V5_INODE_HAS_HOLES, ChunkRecord
from nydusd.rafs.ondisk_v6 cimport V6_LAYOUT_INLINE, ChunkIndexV6
from nydusd.rafs.read_v5 cimport BootstrapV5, Record
from nydusd.rafs.read_v6 cimport BootstrapV6, Inode

from nydusd.codec.digest import hasher

cdef enum:
    CLAIM_SHIFT = 2         # metadata is claimed in units of 4 bytes
    TARGET_MAX = 4095       # bytes; PATH_MAX less the zero


@cython.final
cdef class ContentsCheck:
    """Nothing of *bootstrap* is claimed yet; findings go to *trail*, what is met to *chunks*.

    *tell* is given a line for each chunk, or is None.
    """

    def __cinit__(self, Bootstrap bootstrap, MetChunks chunks, Trail trail, tell=None):
        self.bootstrap = bootstrap
        self.chunks = chunks
        self.trail = trail
        self.tell = tell
        self.shared = <uint64_t>-1
        if isinstance(bootstrap, BootstrapV5):
            self.v5 = bootstrap
        else:
            self.v6 = bootstrap
        self.claims = <uint8_t *>calloc((bootstrap.file.size >> CLAIM_SHIFT + 3) + 2, 1)
        if self.claims == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.claims)

    # metadata belongs to one thing only

    cdef bint take_record(self, const char *name, uint32_t length,
                          const Record *record) except -1:
        """`take` for a record of v5 with all its parts."""
        cdef uint64_t start = <const uint8_t *>record.inode - self.v5.file.base
        cdef uint64_t end = record.chunks
        if record.kind == KIND_REGULAR:
            end += <uint64_t>record.inode.child_count * sizeof(ChunkRecord)
        return self.take(name, length, start, end - start, "its record")

    cdef bint take(self, const char *name, uint32_t name_len, uint64_t start, uint64_t size,
                   str what) except -1:
        """Whether these bytes of metadata are in the file and nobody else's; a finding if not."""
        cdef uint64_t at = 0
        if self.bootstrap.file.at(start, size) == NULL:
            self.trail.add(
                name, name_len,
                f"{what} ends behind the file, {size} bytes at {start:#x}")
            return False
        if self.claimed > 2 * self.bootstrap.file.size:
            self.trail.add(
                name, name_len,
                "so much metadata lies on other metadata that the rest of "
                "the image is not looked at")
            self.trail.ended = True
            return False
        if self.claim(start, size, &at):
            self.trail.add(name, name_len, f"{what} lies on other metadata at {at:#x}")
            return False
        return True

    cdef int claim(self, uint64_t start, uint64_t size, uint64_t *at) noexcept nogil:
        """Take bytes of the file; 1 and where, when some are somebody's. They are in the file."""
        cdef uint64_t unit = start >> CLAIM_SHIFT
        cdef uint64_t end = (start + size + (1 << CLAIM_SHIFT) - 1) >> CLAIM_SHIFT
        cdef uint8_t mask
        cdef int taken = 0
        self.claimed += size
        while unit < end:
            if unit % 8 == 0 and end - unit >= 8:
                mask = 0xff
            else:
                mask = 1 << (unit % 8)
            if self.claims[unit >> 3] & mask and not taken:
                taken = 1
                at[0] = unit << CLAIM_SHIFT
            self.claims[unit >> 3] |= mask
            unit += 8 if mask == 0xff else 1
        return taken

    # v5

    cdef int visit_v5(self, const char *name, uint32_t length, uint64_t ino) except -1:
        """What only v5 has: records that are one piece, chunks with their places, digests."""
        cdef Record record
        self.v5.load_ino(ino, &record)
        if not self.take_record(name, length, &record):
            return 0
        if record.kind == KIND_REGULAR:
            self.check_chunks_v5(name, length, &record)
        elif record.kind == KIND_SYMLINK:
            self.check_target(name, length, <const char *>record.target,
                              record.inode.symlink_size, record.inode.size)
        elif record.kind == KIND_DIRECTORY and self.v5.load_directory(ino, &record) != 0:
            self.trail.add(
                name, length,
                f"has {record.inode.child_count} children from inode "
                f"{record.inode.child_index} on: they are not behind it in "
                "the table")
        if record.kind != KIND_DIRECTORY \
                and self.v5.digest_of_record(&record) != (<const char *>record.inode.digest)[:32]:
            self.trail.add(name, length, "does not match its digest")
        return 0

    cdef int check_further_name(self, const char *name, uint32_t length,
                                const Record *record) except -1:
        """v5: each name of a hard link has a whole record, with a digest of its own."""
        if self.take_record(name, length, record) \
                and self.v5.digest_of_record(record) != (<const char *>record.inode.digest)[:32]:
            self.trail.add(name, length, "does not match its digest")
        return 0

    cdef int check_directory_digest(self, const char *name, uint32_t length,
                                    uint64_t ino) except -1:
        """v5: a directory's digest is made of its children's."""
        cdef Record directory, child
        cdef uint64_t i
        if self.v5.load_directory(ino, &directory) != 0:
            return 0
        self.claimed += directory.inode.child_count * <uint64_t>sizeof(uint32_t)
        if self.claimed > 2 * self.v5.file.size:
            return 0        # the next child ends the walk
        state = hasher(self.v5.digester)
        for i in range(directory.inode.child_count):
            if self.v5.load_index(directory.inode.child_index + i, &child) != 0:
                return 0    # told when its turn comes
            state.update((<const char *>child.inode.digest)[:32])
        if state.digest() != (<const char *>directory.inode.digest)[:32]:
            self.trail.add(name, length, "does not match its digest")
        return 0

    cdef int check_chunks_v5(self, const char *name, uint32_t length,
                             const Record *record) except -1:
        """The chunks of a file make it up; in a file with holes they are in order."""
        cdef ChunkSpan span
        cdef MetChunk met
        cdef uint64_t i
        cdef uint64_t at = 0
        cdef uint64_t end = 0           # of the chunk before
        cdef uint64_t size = record.inode.size
        cdef bint holes = record.inode.flags & V5_INODE_HAS_HOLES
        for i in range(record.inode.child_count):
            if self.v5.load_chunk(record, i, &at, &span) != 0:
                self.trail.add(name, length, f"chunk {i} of the file cannot be: "
                               + chunk_fault(self.v5, record, i))
                return 0
            if at < end or at > size or span.uncompressed_size > size - at:
                self.trail.add(
                    name, length,
                    f"chunk {i} of the file has {span.uncompressed_size} bytes "
                    f"at {at}, the one before ends at {end}, the file at {size}")
                return 0
            if not holes and (at != end or at != i * self.v5.chunk_size):
                self.trail.add(
                    name, length,
                    f"chunk {i} of the file is at {at}, the one before ends at "
                    f"{end}: a file without holes")
                return 0
            end = at + span.uncompressed_size
            if span.flags & SPAN_HOLE:
                continue
            self.tell_chunk(&span)
            met.plain_offset = span.uncompressed_offset
            met.stored_offset = span.compressed_offset
            met.blob_index = span.blob_index
            met.chunk_index = span.chunk_index
            met.plain_size = span.uncompressed_size
            met.stored_size = 0 if span.chunk_flags & CHUNK_BATCH else span.compressed_size
            self.chunks.add(&met)
        if end != size and not holes:
            self.trail.add(name, length, f"its chunks have {end} bytes, it has {size}")
        return 0

    # v6

    cdef int visit_v6(self, const char *name, uint32_t length, uint64_t ino) except -1:
        """What only v6 has: attributes, chunk numbers and data behind inodes, or in blocks."""
        cdef Inode inode
        cdef uint64_t whole, first
        cdef uint32_t kind
        self.v6.load_inode(ino, &inode)
        kind = inode.mode >> KIND_SHIFT
        if not self.take(name, length, inode.offset, inode.tail - inode.offset, "its inode"):
            return 0
        if kind == KIND_REGULAR:
            first = inode.offset + ((inode.tail - inode.offset + 7) & ~<uint64_t>7)
            count = inode.size // self.v6.chunk_size + (inode.size % self.v6.chunk_size != 0)
            if count > self.v6.file.size:
                self.trail.add(name, length, f"has {count} chunks, more than the file has bytes")
            elif count == 0 or self.take(name, length, first, count * sizeof(ChunkIndexV6),
                                         "its chunk numbers"):
                self.check_chunks_v6(name, length, &inode)
            return 0
        if kind != KIND_DIRECTORY and kind != KIND_SYMLINK:
            return 0
        whole = inode.size >> self.v6.block_bits << self.v6.block_bits
        if inode.layout != V6_LAYOUT_INLINE:
            whole = inode.size
        first = <uint64_t>inode.content << self.v6.block_bits
        if whole and not self.take(name, length, first, whole, "its data"):
            self.shared = ino
            return 0
        if inode.size > whole \
                and not self.take(name, length, inode.tail, inode.size - whole, "its data"):
            self.shared = ino
            return 0
        if kind == KIND_SYMLINK:
            self.read_target_v6(name, length, &inode)
        return 0

    cdef int read_target_v6(self, const char *name, uint32_t length, const Inode *inode) except -1:
        """Check a symlink's target, of which a long one is not looked at."""
        cdef const uint8_t *data = NULL
        cdef uint32_t size = 0
        if inode.size == 0 or inode.size > TARGET_MAX:
            return self.check_target(name, length, NULL, inode.size, inode.size)
        if self.v6.data_block(inode, 0, &data, &size) == 0:
            self.check_target(name, length, <const char *>data, size, inode.size)
        return 0

    cdef int check_chunks_v6(self, const char *name, uint32_t length, const Inode *inode) except -1:
        """Each chunk of a file exists, where the chunk table has it."""
        cdef ChunkSpan span
        cdef const MetChunk *met
        cdef uint64_t left = inode.size
        cdef uint64_t i = 0
        while left:
            piece = min(left, <uint64_t>self.v6.chunk_size)
            if self.v6.load_chunk(inode, i, 0, piece, &span) != 0:
                self.trail.add(
                    name, length,
                    f"chunk {i} of the file is in no blob, is not one of the "
                    "blob's chunks or ends behind it")
                return 0
            self.tell_chunk(&span)
            if self.table and not span.flags & SPAN_DIRECT:
                met = self.chunks.find(span.blob_index, span.chunk_index)
                if met == NULL:
                    self.trail.add(
                        name, length,
                        f"chunk {i} of the file, number {span.chunk_index} of "
                        f"blob {span.blob_index}, is not in the chunk table")
                    return 0
                if met.plain_offset != span.uncompressed_offset or met.plain_size < piece:
                    self.trail.add(
                        name, length,
                        f"chunk {i} of the file has {piece} bytes at "
                        f"{span.uncompressed_offset:#x} of the plain blob, the "
                        f"chunk table has {met.plain_size} at "
                        f"{met.plain_offset:#x}")
                    return 0
            left -= piece
            i += 1
        return 0

    # both

    cdef int check_target(self, const char *name, uint32_t length, const char *target,
                          uint64_t size, uint64_t told) except -1:
        if size == 0 or size > TARGET_MAX:
            self.trail.add(name, length, f"is a symlink with a target of {size} bytes")
        elif size != told:
            self.trail.add(name, length, f"{size} bytes of target, size {told}")
        elif memchr(target, 0, size) != NULL:
            self.trail.add(name, length, "is a symlink with NUL in its target")
        return 0

    cdef int check_xattrs(self, const char *name, uint32_t length, uint64_t ino) except -1:
        for line in xattr_faults(self.bootstrap, ino):
            self.trail.add(name, length, line)
        return 0

    cdef int tell_chunk(self, const ChunkSpan *span) except -1:
        if self.tell is not None:
            self.tell(
                f"\t chunk: blob {span.blob_index} index {span.chunk_index} uncompressed offset "
                f"{span.uncompressed_offset:#x} length {span.length:#x}"
            )
        return 0
