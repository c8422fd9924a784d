"""Reader of v5 bootstraps: a table of inode records, each with its name and its chunks.

Opening reads the tables (`tables_v5`), never the inodes. A request goes through the inode table to
one record, or to the few of a binary search. Children have greater indexes than their directory
and name it as their parent, which is checked where they are met: so no directory can be reached
twice, whatever the file says. Any thread, no GIL. Facts of the format: docs/formats/rafs-v5.md.
"""

cimport cython
from libc.errno cimport E2BIG, EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ERANGE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr, memcpy

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.bootstrap cimport (
    CHUNK_BATCH, CHUNK_COMPRESSED, CHUNK_ENCRYPTED, CHUNK_HOLE, SPAN_HOLE, SPAN_PLACED,
    Attributes, BlobLimit, Bootstrap, ChunkSpan, DirEntry, XattrEntry,
)
from nydusd.rafs.names cimport (
    KIND_DIRECTORY, KIND_REGULAR, KIND_SHIFT, KIND_SYMLINK, NAME_MAX, compare_names, is_device,
    is_dots, is_kind, is_name,
)
from nydusd.rafs.ondisk_v5 cimport (
    V5_ALIGNMENT, V5_INODE_HAS_HOLES, V5_INODE_XATTR, V5_NAME_MAX, V5_ROOT_INO,
    V5_SUPERBLOCK_SIZE, ChunkRecord, InodeV5, SuperblockV5,
)

from nydusd.base.errors import BootstrapError, check, errno_of
from nydusd.codec.digest import digest_of, hasher
from nydusd.rafs.tables_v5 import read_tables

cdef enum:
    INODE_OFFSET_SHIFT = 3
    HOLE_SPAN_BYTES = 1 << 30       # a longer hole is told in pieces: lengths have 32 bits
    FOLLOWING_INODES = 64
    GAP_SHIFT = 7                   # neighbours lie at most limit / 128 apart
    # BootstrapV5.verified
    VERIFIED_GOOD = 1
    VERIFIED_BAD = 2

cdef extern from *:
    """
    static inline uint8_t mark_load(const uint8_t *p)
        { return __atomic_load_n(p, __ATOMIC_RELAXED); }
    static inline void mark_store(uint8_t *p, uint8_t v)
        { __atomic_store_n(p, v, __ATOMIC_RELAXED); }
    """
    uint8_t mark_load(const uint8_t *) noexcept nogil
    void mark_store(uint8_t *, uint8_t) noexcept nogil


cdef inline uint64_t aligned(uint64_t size) noexcept nogil:
    """*size* (below 2^63) rounded up to the alignment of records."""
    return (size + V5_ALIGNMENT - 1) & ~<uint64_t>(V5_ALIGNMENT - 1)


@cython.final
cdef class BootstrapV5(Bootstrap):
    """The v5 bootstrap in *file*; `BootstrapError` says what of its tables is not as it must be.

    With *validate* the digests of a directory's children are checked when it is first used.
    """

    def __cinit__(self, Mapping file, bint validate=False):
        cdef const SuperblockV5 *superblock
        cdef uint32_t i
        tables = read_tables(file)
        superblock = <const SuperblockV5 *>file.at(0, sizeof(SuperblockV5))
        if superblock == NULL:
            raise BootstrapError("v5 bootstrap: cut while it was opened")
        self.file = file
        self.version = 5
        self.root_ino = V5_ROOT_INO
        self.begin(superblock.flags, tables.blobs)
        self.inodes_count = superblock.inodes_count
        self.chunk_size = superblock.chunk_size
        self.inode_table = superblock.inode_table_offset
        self.entries = superblock.inode_table_entries
        self.prefetch_inos = tables.prefetch_inos
        self.digester = tables.digester
        for i in range(self.limits_count):
            info = self.blobs[i]
            if info.chunk_count:
                self.limits[i].chunk_count = info.chunk_count
            if info.data_size:
                self.limits[i].compressed_end = info.data_size
            if info.uncompressed_size:
                self.limits[i].uncompressed_end = (info.uncompressed_size + 4095) & ~4095
        if validate:
            self.verified = <uint8_t *>calloc(self.entries + 1, 1)
            if self.verified == NULL:
                raise MemoryError
        self.check_root()

    def __dealloc__(self):
        free(self.verified)

    def check_root(self):
        """`BootstrapError` unless the root is a directory."""
        cdef Record root
        if self.load_directory(V5_ROOT_INO, &root) != 0:
            raise BootstrapError(
                "v5 bootstrap: the first inode is not a directory: the file is corrupt or cut, "
                "get or build it again"
            )

    cdef int load_index(self, uint64_t index, Record *out) noexcept nogil:
        """The record with *index*: 0, -ENOENT no such index, -EIO no record can be like this."""
        cdef const uint8_t *place
        cdef uint32_t stored = 0
        cdef uint64_t offset, size
        if index == 0 or index > self.entries:
            return -ENOENT
        if self.file.load_u32(self.inode_table + (index - 1) * sizeof(uint32_t), &stored) != 0:
            return -EIO
        offset = <uint64_t>stored << INODE_OFFSET_SHIFT
        place = self.file.at(offset, sizeof(InodeV5))
        if offset <= V5_SUPERBLOCK_SIZE or place == NULL:
            return -EIO
        out.inode = <const InodeV5 *>place
        out.index = <uint32_t>index
        out.kind = out.inode.mode >> KIND_SHIFT
        size = sizeof(InodeV5) + aligned(out.inode.name_size) + aligned(out.inode.symlink_size)
        if self.file.at(offset, size) == NULL or not is_kind(out.kind) \
                or out.inode.name_size == 0 or out.inode.name_size > V5_NAME_MAX \
                or out.inode.ino == 0 or out.inode.ino > index:
            return -EIO
        out.name = place + sizeof(InodeV5)
        out.target = out.name + aligned(out.inode.name_size)
        out.xattrs = offset + size
        out.xattrs_size = 0
        out.chunks = out.xattrs
        if out.inode.flags & V5_INODE_XATTR:
            if self.file.load_u64(out.xattrs, &out.xattrs_size) != 0:
                return -EIO
            out.xattrs += sizeof(uint64_t)
            if out.xattrs_size > self.file.size:
                return -EIO
            out.chunks = out.xattrs + aligned(out.xattrs_size)
            if self.file.at(out.xattrs, out.xattrs_size) == NULL:
                return -EIO
        return -EIO if self.file.is_damaged() else 0

    cdef int load_ino(self, uint64_t ino, Record *out) noexcept nogil:
        """The first record of inode *ino*, whose index is that number too."""
        cdef int rc = self.load_index(ino, out)
        if rc == 0 and out.inode.ino != ino:
            return -ENOENT          # the index of a further name of a hard link
        return rc

    cdef int load_directory(self, uint64_t ino, Record *out) noexcept nogil:
        """The record of directory *ino*, its children in the table and behind it; -ENOTDIR."""
        cdef uint64_t first, count
        cdef int rc = self.load_ino(ino, out)
        if rc != 0:
            return rc
        if out.kind != KIND_DIRECTORY:
            return -ENOTDIR
        first = out.inode.child_index
        count = out.inode.child_count
        if count and (first <= ino or first > self.entries or count > self.entries - first + 1):
            return -EIO
        return 0

    cdef int load_child(self, const Record *directory, uint32_t number,
                        Record *out) noexcept nogil:
        """Child *number* of a directory; -EIO when it cannot be one."""
        cdef int rc = self.load_index(<uint64_t>directory.inode.child_index + number, out)
        if rc != 0:
            return -EIO
        if not is_name(out.name, out.inode.name_size) or is_dots(out.name, out.inode.name_size):
            return -EIO
        if out.kind == KIND_DIRECTORY and (
                out.inode.ino != out.index or out.inode.parent != directory.inode.ino):
            return -EIO
        return 0

    cdef int attributes(self, uint64_t ino, Attributes *out) noexcept nogil:
        cdef Record record
        cdef int rc = self.load_ino(ino, &record)
        if rc != 0:
            return rc
        out.ino = ino
        out.size = record.inode.size
        out.blocks = record.inode.blocks
        out.mtime = record.inode.mtime
        out.mtime_nsec = record.inode.mtime_nsec
        out.mode = record.inode.mode
        out.nlink = record.inode.nlink
        out.uid = record.inode.uid if self.explicit_owner else self.daemon_uid
        out.gid = record.inode.gid if self.explicit_owner else self.daemon_gid
        out.rdev = record.inode.rdev if is_device(record.kind) else 0
        out.atime = out.ctime = 0
        out.atime_nsec = out.ctime_nsec = 0
        return 0

    cdef int lookup(self, uint64_t parent, const char *name, size_t name_len,
                    uint64_t *ino) noexcept nogil:
        cdef Record directory, child
        cdef uint32_t low = 0
        cdef uint32_t high, middle
        cdef int order
        cdef int rc = self.load_directory(parent, &directory)
        if rc == 0:
            rc = self.check_digests(parent)
        if rc != 0:
            return rc
        if compare_names(name, name_len, b".", 1) == 0:
            ino[0] = parent
            return 0
        if compare_names(name, name_len, b"..", 2) == 0:
            ino[0] = directory.inode.parent if parent != V5_ROOT_INO else parent
            return 0
        if name_len > NAME_MAX:
            return -ENAMETOOLONG
        high = directory.inode.child_count
        while low < high:
            middle = low + (high - low) // 2
            rc = self.load_child(&directory, middle, &child)
            if rc != 0:
                return rc
            order = compare_names(name, name_len, <const char *>child.name,
                                  child.inode.name_size)
            if order == 0:
                ino[0] = child.inode.ino
                return -EIO if self.file.is_damaged() else 0
            if order < 0:
                high = middle
            else:
                low = middle + 1
        return -EIO if self.file.is_damaged() else -ENOENT

    cdef int next_entry(self, uint64_t directory, uint64_t cookie, DirEntry *out) noexcept nogil:
        cdef Record record, child
        cdef int rc = self.load_directory(directory, &record)
        if rc == 0:
            rc = self.check_digests(directory)
        if rc != 0:
            return rc
        out.next_cookie = cookie + 1
        if cookie < 2:              # not stored: `.` and `..`
            out.name = b".."
            out.name_len = <uint32_t>cookie + 1
            out.kind = KIND_DIRECTORY
            out.ino = directory
            if cookie == 1 and directory != V5_ROOT_INO:
                out.ino = record.inode.parent
            return 1
        if cookie - 2 >= record.inode.child_count:
            return 0
        rc = self.load_child(&record, <uint32_t>(cookie - 2), &child)
        if rc != 0:
            return rc
        out.name = <const char *>child.name
        out.name_len = child.inode.name_size
        out.kind = child.kind
        out.ino = child.inode.ino
        return -EIO if self.file.is_damaged() else 1

    cdef int readlink(self, uint64_t ino, char *out, size_t room, size_t *length) noexcept nogil:
        cdef Record record
        cdef int rc = self.load_ino(ino, &record)
        if rc != 0:
            return rc
        if record.kind != KIND_SYMLINK:
            return -EINVAL
        if record.inode.symlink_size == 0:
            return -EIO
        if record.inode.symlink_size > room:
            return -ERANGE
        memcpy(out, record.target, record.inode.symlink_size)
        length[0] = record.inode.symlink_size
        return -EIO if self.file.is_damaged() else 0

    cdef int next_xattr(self, uint64_t ino, uint64_t cookie, XattrEntry *out) noexcept nogil:
        """The pair at *cookie* = offset in the record's pairs; 1, 0 the end."""
        cdef Record record
        cdef const uint8_t *pair
        cdef const uint8_t *zero
        cdef uint32_t size = 0
        cdef uint64_t left
        cdef int rc = self.load_ino(ino, &record)
        if rc != 0:
            return rc
        if cookie >= record.xattrs_size:
            return 0
        left = record.xattrs_size - cookie
        if left < sizeof(uint32_t) \
                or self.file.load_u32(record.xattrs + cookie, &size) != 0 \
                or size > left - sizeof(uint32_t):
            return -EIO
        pair = self.file.at(record.xattrs + cookie + sizeof(uint32_t), size)
        if pair == NULL:
            return -EIO
        zero = <const uint8_t *>memchr(pair, 0, size)
        if zero == NULL or not is_name_of_xattr(zero - pair):
            return -EIO
        out.prefix = b""
        out.prefix_len = 0
        out.name = <const char *>pair
        out.name_len = <uint32_t>(zero - pair)
        out.value = zero + 1
        out.value_len = size - out.name_len - 1
        out.next_cookie = cookie + sizeof(uint32_t) + size
        return -EIO if self.file.is_damaged() else 1

    cdef int load_chunk(self, const Record *record, uint64_t number, uint64_t *file_offset,
                        ChunkSpan *span) noexcept nogil:
        """Chunk *number* of a regular file as a span of the whole, and where the file has it."""
        cdef const ChunkRecord *chunk
        cdef const BlobLimit *limit
        if number >= record.inode.child_count:
            return -EIO
        chunk = <const ChunkRecord *>self.file.at(
            record.chunks + number * sizeof(ChunkRecord), sizeof(ChunkRecord))
        if chunk == NULL or chunk.blob_index >= self.limits_count:
            return -EIO
        limit = &self.limits[chunk.blob_index]
        if chunk.uncompressed_size == 0 or chunk.uncompressed_size > self.chunk_size \
                or chunk.index >= limit.chunk_count \
                or chunk.uncompressed_offset > limit.uncompressed_end \
                or chunk.uncompressed_size > limit.uncompressed_end - chunk.uncompressed_offset \
                or chunk.compressed_offset > limit.compressed_end \
                or chunk.compressed_size > limit.compressed_end - chunk.compressed_offset:
            return -EIO
        if not chunk.flags & (CHUNK_COMPRESSED | CHUNK_ENCRYPTED | CHUNK_BATCH | CHUNK_HOLE) \
                and chunk.compressed_size != chunk.uncompressed_size:
            return -EIO
        if chunk.compressed_size == 0 and not chunk.flags & (CHUNK_BATCH | CHUNK_HOLE):
            return -EIO
        span.flags = SPAN_HOLE if chunk.flags & CHUNK_HOLE else SPAN_PLACED
        span.blob_index = chunk.blob_index
        span.chunk_index = chunk.index
        span.offset = 0
        span.length = chunk.uncompressed_size
        span.uncompressed_size = chunk.uncompressed_size
        span.uncompressed_offset = chunk.uncompressed_offset
        span.compressed_offset = chunk.compressed_offset
        span.compressed_size = chunk.compressed_size
        span.chunk_flags = chunk.flags
        span.crc32 = chunk.crc32
        span.digest = &chunk.digest[0]
        file_offset[0] = chunk.file_offset
        return 0

    cdef int spans(self, uint64_t ino, uint64_t offset, uint64_t size, ChunkSpan *out,
                   uint32_t room, uint32_t *count) noexcept nogil:
        cdef Record record
        cdef ChunkSpan *span
        cdef uint64_t in_chunk, length, number
        cdef uint64_t file_offset = 0
        cdef int rc = self.load_ino(ino, &record)
        count[0] = 0
        if rc != 0:
            return rc
        if record.kind != KIND_REGULAR:
            return -EISDIR if record.kind == KIND_DIRECTORY else -EINVAL
        if offset >= record.inode.size:
            return 0
        if size > record.inode.size - offset:
            size = record.inode.size - offset
        if record.inode.flags & V5_INODE_HAS_HOLES:
            return self.spans_with_holes(&record, offset, size, out, room, count)
        while size:
            if count[0] == room:
                return -E2BIG
            span = &out[count[0]]
            number = offset // self.chunk_size
            in_chunk = offset % self.chunk_size
            length = self.chunk_size - in_chunk
            if length > size:
                length = size
            rc = self.load_chunk(&record, number, &file_offset, span)
            if rc != 0:
                return rc
            if file_offset != number * self.chunk_size \
                    or in_chunk + length > span.uncompressed_size:
                return -EIO
            span.offset = <uint32_t>in_chunk
            span.length = <uint32_t>length
            count[0] += 1
            offset += length
            size -= length
        return -EIO if self.file.is_damaged() else 0

    cdef int spans_with_holes(self, const Record *record, uint64_t offset, uint64_t size,
                              ChunkSpan *out, uint32_t room, uint32_t *count) noexcept nogil:
        """As `spans`, for a file whose chunks stand where their records say, zeros between them.

        Chunks must be in file order; -EIO when one goes back behind the one before it.
        """
        cdef ChunkSpan chunk
        cdef uint64_t low = 0
        cdef uint64_t high = record.inode.child_count
        cdef uint64_t middle, length
        cdef uint64_t start = 0
        cdef int rc
        while low < high:           # the first chunk that ends behind `offset`
            middle = low + (high - low) // 2
            rc = self.load_chunk(record, middle, &start, &chunk)
            if rc != 0:
                return rc
            if start > offset or offset - start < chunk.uncompressed_size:
                high = middle
            else:
                low = middle + 1
        while size:
            if count[0] == room:
                return -E2BIG
            length = size
            start = <uint64_t>-1
            if low < record.inode.child_count:
                rc = self.load_chunk(record, low, &start, &chunk)
                if rc != 0:
                    return rc
                if start <= offset and offset - start >= chunk.uncompressed_size:
                    return -EIO     # goes back
            if start > offset:
                if length > start - offset:
                    length = start - offset
                if length > HOLE_SPAN_BYTES:
                    length = HOLE_SPAN_BYTES
                chunk.flags = SPAN_HOLE
                chunk.offset = 0
                chunk.digest = NULL
            else:
                chunk.offset = <uint32_t>(offset - start)
                if length > chunk.uncompressed_size - chunk.offset:
                    length = chunk.uncompressed_size - chunk.offset
                low += 1
            chunk.length = <uint32_t>length
            out[count[0]] = chunk
            count[0] += 1
            offset += length
            size -= length
        if count[0] and low < record.inode.child_count \
                and self.load_chunk(record, low, &start, &chunk) == 0 and start < offset:
            return -EIO             # what was told as a hole may be its
        return -EIO if self.file.is_damaged() else 0

    cdef int following(self, uint64_t ino, uint64_t end, uint64_t limit_bytes, ChunkSpan *out,
                       uint32_t room, uint32_t *count) noexcept nogil:
        """Best effort: what cannot be read ends the list, it is nothing that was asked for."""
        cdef Record record
        cdef ChunkSpan span
        cdef uint64_t file_offset = 0
        cdef uint64_t stored_end, number
        cdef uint64_t taken = 0
        cdef uint32_t blob_index
        cdef int tries
        count[0] = 0
        if end == 0 or self.load_ino(ino, &record) != 0 or record.kind != KIND_REGULAR \
                or record.inode.flags & V5_INODE_HAS_HOLES:
            return 0
        number = (end - 1) // self.chunk_size
        if self.load_chunk(&record, number, &file_offset, &span) != 0:
            return 0
        blob_index = span.blob_index
        stored_end = span.compressed_offset + span.compressed_size
        for tries in range(FOLLOWING_INODES + 1):
            if tries:
                number = <uint64_t>-1   # the next inode, from its first chunk
                if self.load_index(<uint64_t>record.index + 1, &record) != 0:
                    return 0
                if record.kind != KIND_REGULAR or record.inode.ino != record.index \
                        or record.inode.flags & V5_INODE_HAS_HOLES:
                    continue
            number += 1
            while number < record.inode.child_count:
                if self.load_chunk(&record, number, &file_offset, &span) != 0 \
                        or not span.flags & SPAN_PLACED or span.blob_index != blob_index \
                        or span.compressed_offset < stored_end \
                        or span.compressed_offset - stored_end > limit_bytes >> GAP_SHIFT:
                    return 0
                taken += span.compressed_offset - stored_end + span.compressed_size
                if taken > limit_bytes or count[0] == room:
                    return 0
                stored_end = span.compressed_offset + span.compressed_size
                out[count[0]] = span
                count[0] += 1
                number += 1
        return 0

    cdef int check_digests(self, uint64_t directory) noexcept nogil:
        """0, or -EIO when digests are to be checked and those below *directory* are wrong."""
        cdef uint8_t mark
        if self.verified == NULL:
            return 0
        mark = mark_load(&self.verified[directory])
        if mark == VERIFIED_GOOD:
            return 0
        if mark == VERIFIED_BAD:
            return -EIO             # said before
        return verify_from_below(self, directory)

    cdef object digest_of_record(self, const Record *record):
        """The digest that the content of *record* (no directory) gives."""
        cdef const ChunkRecord *chunk
        cdef uint32_t i
        if record.kind == KIND_SYMLINK:
            return digest_of(self.digester, (<const char *>record.target)[
                :record.inode.symlink_size])
        state = hasher(self.digester)
        if record.kind == KIND_REGULAR:
            for i in range(record.inode.child_count):
                chunk = <const ChunkRecord *>self.file.at(
                    record.chunks + <uint64_t>i * sizeof(ChunkRecord), sizeof(ChunkRecord))
                if chunk == NULL:
                    check(-EIO, "chunk %d of inode %d", i, record.inode.ino)
                state.update((<const char *>chunk.digest)[:32])
        return state.digest()

    def verify_directory(self, uint64_t ino):
        """`BootstrapError` unless the digests in directory *ino* match what they stand for.

        Its own is made of its children's; those of files and symlinks are made of their content.
        Child directories are not entered: their turn comes when they are used.
        """
        cdef Record directory, child
        cdef uint32_t i
        check(self.load_directory(ino, &directory), "directory %d", ino)
        state = hasher(self.digester)
        for i in range(directory.inode.child_count):
            check(self.load_child(&directory, i, &child), "child %d of directory %d", i, ino)
            stored = (<const char *>child.inode.digest)[:32]
            state.update(stored)
            if child.kind != KIND_DIRECTORY and self.digest_of_record(&child) != stored:
                name = (<const char *>child.name)[:child.inode.name_size]
                raise BootstrapError(
                    f"v5 bootstrap: inode {child.inode.ino} ({name!r}) does not match its digest: "
                    "the file is corrupt, get or build it again"
                )
        if state.digest() != (<const char *>directory.inode.digest)[:32]:
            raise BootstrapError(
                f"v5 bootstrap: directory inode {ino} does not match its digest: the file is "
                "corrupt, get or build it again"
            )

    def verify_tree(self):
        """`BootstrapError` unless every digest of the image is right; reads all of it."""
        for entry in self.walk():
            if self.stat(entry.ino).mode >> KIND_SHIFT == KIND_DIRECTORY:
                self.verify_directory(entry.ino)


cdef inline bint is_name_of_xattr(uint64_t size) noexcept nogil:
    """Whether an attribute's name may have *size* bytes."""
    return 0 < size <= NAME_MAX


cdef int verify_from_below(BootstrapV5 bootstrap, uint64_t directory) noexcept with gil:
    """The gate up: verify *directory*, remember the result; 0 or -EIO. The failure is logged."""
    try:
        bootstrap.verify_directory(directory)
    except BaseException as exc:
        mark_store(&bootstrap.verified[directory], VERIFIED_BAD)
        errno_of(exc)
        return -EIO
    mark_store(&bootstrap.verified[directory], VERIFIED_GOOD)
    return 0
