"""One walk through all metadata of an image, for the checker: every fault becomes one line.

Nothing recurses, and whatever the file holds the walk is bounded: each inode is looked at once, and
each byte of metadata may belong to one thing only, so that all of it together is not more than the
file; where more is claimed, the walk ends. The open directories are at most `DEPTH_MAX`, the
findings as many as the report takes.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memchr

from nydusd.build.check_chunks cimport MetChunk, MetChunks
from nydusd.build.check_inode cimport chunk_fault, record_fault, xattr_faults
from nydusd.rafs.bootstrap cimport (
    CHUNK_BATCH, SPAN_DIRECT, SPAN_HOLE, Attributes, Bootstrap, ChunkSpan,
)
from nydusd.rafs.names cimport (
    KIND_DIRECTORY, KIND_REGULAR, KIND_SHIFT, KIND_SYMLINK, NAME_MAX, compare_names, is_dots,
    is_name,
)
from nydusd.rafs.ondisk_v5 cimport V5_INODE_HAS_HOLES, ChunkRecord
from nydusd.rafs.ondisk_v6 cimport ChunkIndexV6, DirentV6, V6_LAYOUT_INLINE
from nydusd.rafs.read_v5 cimport BootstrapV5, Record
from nydusd.rafs.read_v6 cimport BootstrapV6, DirBlock, Inode, entry_name, kind_of_type

import os

from nydusd.base.errors import NydusError
from nydusd.build.check_chunks import read_chunk_table
from nydusd.build.node import shown
from nydusd.codec.digest import hasher

DEPTH_MAX = 4096            # levels: no path that can be named is deeper, PATH_MAX / 2
PATH_SHOWN_MAX = 1024       # bytes of a path in a finding

cdef enum:
    STACK_ROOM = 4097       # DEPTH_MAX and the root
    CLAIM_SHIFT = 2         # metadata is claimed in units of 4 bytes
    TARGET_MAX = 4095       # bytes; PATH_MAX less the zero
    NSEC_END = 1000000000
    NAMED_MAX = 0xffffffff
    SIZE_BITS = 63

# A directory on the way of the walk.
cdef struct Frame:
    uint64_t ino
    uint64_t parent
    uint64_t child          # v5: number of the next child; v6: its index in the block
    uint64_t block          # v6
    const char *name        # its own, borrowed from the mapping
    const char *last        # of the entry before, borrowed
    uint32_t name_len
    uint32_t last_len
    bint dot                # v6: `.` and `..` were met
    bint dotdot


@cython.final
cdef class TreeCheck:
    """The walk through *bootstrap*: findings go to `report.add(path, text)`.

    `report.full` ends it. *tell* is given a line for each inode and chunk, or is None.
    """

    cdef Bootstrap bootstrap
    cdef BootstrapV5 v5         # the same one, by its version
    cdef BootstrapV6 v6
    cdef readonly MetChunks chunks      # that the bootstrap tells of
    cdef object report
    cdef object tell
    cdef Frame *stack           # owned
    cdef uint32_t depth         # open directories
    cdef uint32_t *named        # owned; names of each inode
    cdef uint64_t numbers       # inode numbers are below this
    cdef uint8_t *claims        # owned; a bit for each unit of the file
    cdef uint64_t claimed       # bytes
    cdef uint64_t shared        # the last inode whose data lies on other metadata
    cdef bint table             # v6: there is a chunk table
    cdef bint ended             # the walk cannot go on
    cdef readonly uint64_t names        # met, the root included
    cdef readonly uint64_t inodes       # met

    def __cinit__(self, Bootstrap bootstrap, report, tell=None):
        self.bootstrap = bootstrap
        self.report = report
        self.tell = tell
        self.chunks = MetChunks()
        self.shared = <uint64_t>-1
        if isinstance(bootstrap, BootstrapV5):
            self.v5 = bootstrap
            self.numbers = <uint64_t>self.v5.entries + 1
        else:
            self.v6 = bootstrap
            self.numbers = self.v6.slots
        self.stack = <Frame *>calloc(STACK_ROOM, sizeof(Frame))
        self.named = <uint32_t *>calloc(self.numbers + 1, sizeof(uint32_t))
        self.claims = <uint8_t *>calloc((bootstrap.file.size >> CLAIM_SHIFT + 3) + 2, 1)
        if self.stack == NULL or self.named == NULL or self.claims == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.claims)
        free(self.named)
        free(self.stack)

    # where a finding is

    cdef bytes path(self, const char *name, uint32_t name_len):
        """The path of *name* in the innermost directory; a long one without its middle."""
        cdef uint32_t i
        cdef uint32_t first = 0
        parts = []
        if self.depth > 64:
            first = self.depth - 64
        for i in range(first, self.depth):
            if self.stack[i].name_len:
                parts.append(self.stack[i].name[:self.stack[i].name_len])
        if name_len:
            parts.append(name[:name_len])
        path = b"/" + b"/".join(parts)
        if first:
            path = b"/..." + path
        if len(path) > PATH_SHOWN_MAX:
            path = path[:PATH_SHOWN_MAX // 4] + b"..." + path[-PATH_SHOWN_MAX // 2:]
        return path

    cdef int add(self, const char *name, uint32_t name_len, object what) except -1:
        """A finding about *name* in the innermost directory."""
        self.report.add(self.path(name, name_len), what)
        if self.report.full:
            self.ended = True
        return 0

    # metadata belongs to one thing only

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

    cdef bint take(self, const char *name, uint32_t name_len, uint64_t start, uint64_t size,
                   str what) except -1:
        """Whether these bytes of metadata are in the file and nobody else's; a finding if not."""
        cdef uint64_t at = 0
        if self.bootstrap.file.at(start, size) == NULL:
            self.add(name, name_len, f"{what} ends behind the file, {size} bytes at {start:#x}")
            return False
        if self.claimed > 2 * self.bootstrap.file.size:
            self.add(name, name_len, "so much metadata lies on other metadata that the rest of "
                                     "the image is not looked at")
            self.ended = True
            return False
        if self.claim(start, size, &at):
            self.add(name, name_len, f"{what} lies on other metadata at {at:#x}")
            return False
        return True

    # the walk

    def run(self):
        """Walk; findings go to the report."""
        cdef uint64_t root = self.bootstrap.root_ino
        for line in read_chunk_table(self.bootstrap, self.chunks):
            self.add(NULL, 0, line)
        self.table = self.chunks.count != 0
        self.names = 1
        if self.visit(NULL, 0, root, KIND_DIRECTORY) and root != self.shared:
            self.enter(NULL, 0, root, root)
        while self.depth and not self.ended:
            if self.v5 is not None:
                self.step_v5(&self.stack[self.depth - 1])
            else:
                self.step_v6(&self.stack[self.depth - 1])
        self.depth = 0
        if not self.ended:
            self.finish()

    cdef int finish(self) except -1:
        """What can be said only when everything has been met."""
        if self.v5 is not None:
            for line in self.chunks.unite():
                self.add(NULL, 0, line)
        for line in self.chunks.overlaps():
            self.add(NULL, 0, line)
        self.check_counts()
        for number, ino in enumerate(self.bootstrap.prefetch_inos):
            if self.ended:
                return 0
            if ino >= self.numbers or self.named[ino] == 0:
                self.add(NULL, 0, f"row {number} of the prefetch table is inode {ino}, "
                                  "which has no name")
        return 0

    cdef int check_counts(self) except -1:
        """The superblock counts what there is; v5 of some builders leaves the root out."""
        cdef uint64_t told = self.bootstrap.inodes_count
        if self.v6 is not None and told != self.names:
            self.add(NULL, 0, f"the superblock counts {told} names, {self.names} were met")
        if self.v5 is None:
            return 0
        if self.inodes != told and self.inodes != told + 1:
            self.add(NULL, 0, f"the superblock counts {told} inodes, {self.inodes} were met")
        if self.names != self.v5.entries:
            self.add(NULL, 0, f"the inode table has {self.v5.entries} rows, {self.names} names "
                              "were met")
        return 0

    cdef int enter(self, const char *name, uint32_t name_len, uint64_t ino,
                   uint64_t parent) except -1:
        """Go into a directory that has been visited and not been entered."""
        cdef Frame *frame
        if self.depth == STACK_ROOM:
            self.add(name, name_len,
                     f"is {DEPTH_MAX} levels deep: what is below it is not looked at")
            return 0
        if self.v5 is not None:
            self.check_directory_digest(name, name_len, ino)
        frame = &self.stack[self.depth]
        frame.ino = ino
        frame.parent = parent
        frame.child = 0
        frame.block = 0
        frame.name = name
        frame.name_len = name_len
        frame.last = NULL
        frame.last_len = 0
        frame.dot = frame.dotdot = False
        self.depth += 1
        return 0

    cdef int step_v5(self, Frame *frame) except -1:
        """The next child of the innermost directory, or out of it."""
        cdef Record directory, child
        cdef uint64_t number = frame.child
        if self.v5.load_directory(frame.ino, &directory) != 0 \
                or number >= directory.inode.child_count:
            self.depth -= 1
            return 0
        frame.child += 1
        if self.v5.load_index(directory.inode.child_index + number, &child) != 0:
            self.add(NULL, 0, f"child {number} cannot be read: "
                     + record_fault(self.v5, directory.inode.child_index + number))
            return 0
        name = <const char *>child.name
        length = child.inode.name_size
        if not self.check_name(name, length, f"child {number}"):
            return 0
        if child.kind == KIND_DIRECTORY and child.inode.ino == child.index \
                and child.inode.parent != frame.ino:
            self.add(name, length, f"names directory {child.inode.parent} as its parent, "
                                   f"it is in {frame.ino}")
            return 0
        if child.inode.ino != child.index:
            self.check_further_name(name, length, &child)
        return self.entry(frame, name, length, child.inode.ino, child.kind)

    cdef int step_v6(self, Frame *frame) except -1:
        """The next entry of the innermost directory, or out of it."""
        cdef Inode inode
        cdef DirBlock block
        cdef const DirentV6 *dirent
        cdef const char *name = NULL
        cdef uint32_t length = 0
        cdef uint64_t index = frame.child
        cdef uint64_t number = frame.block
        cdef uint64_t end
        self.v6.load_inode(frame.ino, &inode)
        end = (inode.size + (1 << self.v6.block_bits) - 1) >> self.v6.block_bits
        if number >= end:
            if not (frame.dot and frame.dotdot):
                self.add(NULL, 0, "has no entries `.` and `..`")
            self.depth -= 1
            return 0
        if self.v6.load_block(&inode, number, &block) != 0:
            self.add(NULL, 0, f"block {number} of its entries is broken or outside the file")
            frame.block += 1
            frame.child = 0
            return 0
        frame.child += 1
        if index + 1 >= block.count:
            frame.block += 1
            frame.child = 0
        dirent = &(<const DirentV6 *>block.data)[index]
        if entry_name(&block, <uint32_t>index, &name, &length) != 0:
            self.add(NULL, 0, f"entry {index} of block {number} has no name "
                              f"that can be: empty, with `/` or NUL, over {NAME_MAX} bytes, or at "
                              f"{dirent.name_offset} outside its block")
            return 0
        if dirent.nid >= self.numbers:
            self.add(name, length, f"leads to inode {dirent.nid}, which is behind the file")
            return 0
        if not self.in_order(frame, name, length):
            return 0
        if is_dots(<const uint8_t *>name, length):
            return self.dot_entry(frame, name, length, dirent.nid)
        return self.entry(frame, name, length, dirent.nid, kind_of_type(dirent.file_type))

    cdef int dot_entry(self, Frame *frame, const char *name, uint32_t length,
                       uint64_t nid) except -1:
        """v6 stores `.` and `..`, which must lead where they say."""
        cdef uint64_t right = frame.ino if length == 1 else frame.parent
        if length == 1:
            frame.dot = True
        else:
            frame.dotdot = True
        if nid != right:
            self.add(name, length, f"leads to inode {nid} instead of {right}")
        return 0

    cdef bint check_name(self, const char *name, uint32_t length, str which) except -1:
        """Whether a directory may hold *name*."""
        if not is_name(<const uint8_t *>name, length):
            self.add(NULL, 0, f"{which} has the name {shown(name[:length])!r}: empty, with `/` or "
                              f"NUL, or over {NAME_MAX} bytes")
            return False
        if is_dots(<const uint8_t *>name, length):
            self.add(NULL, 0, f"{which} has the name {shown(name[:length])!r}, which every "
                              "directory has already")
            return False
        return True

    cdef bint in_order(self, Frame *frame, const char *name, uint32_t length) except -1:
        """Whether *name* is behind the one before it; duplicates are a finding, and not followed."""
        cdef int side = -1
        if frame.last != NULL:
            side = compare_names(frame.last, frame.last_len, name, length)
        if side == 0:
            self.add(name, length, "stands twice in its directory")
            return False
        if side > 0:
            self.add(name, length,
                     f"stands behind {shown(frame.last[:frame.last_len])}: lookups may miss it")
        frame.last = name
        frame.last_len = length
        return True

    cdef int entry(self, Frame *frame, const char *name, uint32_t length, uint64_t ino,
                   uint32_t kind) except -1:
        """Check one name and what it leads to; go into a directory."""
        cdef Attributes found
        cdef uint32_t real
        if self.v5 is not None and not self.in_order(frame, name, length):
            return 0
        self.names += 1
        if not self.visit(name, length, ino, kind):
            return 0
        if self.ended or self.bootstrap.attributes(ino, &found) != 0:
            return 0
        real = found.mode >> KIND_SHIFT
        if kind != real:
            self.add(name, length, f"its directory says type {kind}, it has {found.mode:#o}")
        if real != KIND_DIRECTORY or ino == self.shared:
            return 0
        if self.named[ino] > 1:
            self.add(name, length, f"directory inode {ino} has another place in the tree")
            return 0
        return self.enter(name, length, ino, frame.ino)

    cdef bint visit(self, const char *name, uint32_t length, uint64_t ino,
                    uint32_t kind) except -1:
        """Count a name of inode *ino* and check it at its first; whether it can be used."""
        cdef Attributes found
        cdef int rc
        if ino >= self.numbers or (rc := self.bootstrap.attributes(ino, &found)) != 0:
            self.add(name, length, f"inode {ino} cannot be read: {self.what_is_wrong(ino)}")
            return False
        if self.tell is not None:
            self.tell_inode(name, length, ino)
        if self.named[ino] < NAMED_MAX:
            self.named[ino] += 1
        if self.named[ino] > 1:
            return True
        self.inodes += 1
        if found.size >> SIZE_BITS:
            self.add(name, length, f"has a size of {found.size} bytes")
        if found.mtime_nsec >= NSEC_END:
            self.add(name, length, f"was changed {found.mtime_nsec} ns behind a second")
        if found.mode >> 16:
            self.add(name, length, f"has mode {found.mode:#o}")
        if found.nlink == 0:
            self.add(name, length, "has 0 links")
        if self.v5 is not None:
            self.visit_v5(name, length, ino)
        else:
            self.visit_v6(name, length, ino)
        if not self.ended:
            self.check_xattrs(name, length, ino)
        return not self.ended

    cdef bint take_record(self, const char *name, uint32_t length,
                          const Record *record) except -1:
        """`take` for a record of v5 with all its parts."""
        cdef uint64_t start = <const uint8_t *>record.inode - self.v5.file.base
        cdef uint64_t end = record.chunks
        if record.kind == KIND_REGULAR:
            end += <uint64_t>record.inode.child_count * sizeof(ChunkRecord)
        return self.take(name, length, start, end - start, "its record")

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
            self.add(name, length, f"has {record.inode.child_count} children from inode "
                                   f"{record.inode.child_index} on: they are not behind it in "
                                   "the table")
        if record.kind != KIND_DIRECTORY \
                and self.v5.digest_of_record(&record) != (<const char *>record.inode.digest)[:32]:
            self.add(name, length, "does not match its digest")
        return 0

    cdef int check_further_name(self, const char *name, uint32_t length,
                                const Record *record) except -1:
        """v5: each name of a hard link has a whole record, with a digest of its own."""
        if self.take_record(name, length, record) \
                and self.v5.digest_of_record(record) != (<const char *>record.inode.digest)[:32]:
            self.add(name, length, "does not match its digest")
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
            self.add(name, length, "does not match its digest")
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
                self.add(name, length, f"chunk {i} of the file cannot be: "
                         + chunk_fault(self.v5, record, i))
                return 0
            if at < end or at > size or span.uncompressed_size > size - at:
                self.add(name, length, f"chunk {i} of the file has {span.uncompressed_size} bytes "
                                       f"at {at}, the one before ends at {end}, the file at {size}")
                return 0
            if not holes and (at != end or at != i * self.v5.chunk_size):
                self.add(name, length, f"chunk {i} of the file is at {at}, the one before ends at "
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
            self.add(name, length, f"its chunks have {end} bytes, it has {size}")
        return 0

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
                self.add(name, length, f"has {count} chunks, more than the file has bytes")
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
                self.add(name, length, f"chunk {i} of the file is in no blob, is not one of the "
                                       "blob's chunks or ends behind it")
                return 0
            self.tell_chunk(&span)
            if self.table and not span.flags & SPAN_DIRECT:
                met = self.chunks.find(span.blob_index, span.chunk_index)
                if met == NULL:
                    self.add(name, length, f"chunk {i} of the file, number {span.chunk_index} of "
                                           f"blob {span.blob_index}, is not in the chunk table")
                    return 0
                if met.plain_offset != span.uncompressed_offset or met.plain_size < piece:
                    self.add(name, length, f"chunk {i} of the file has {piece} bytes at "
                                           f"{span.uncompressed_offset:#x} of the plain blob, the "
                                           f"chunk table has {met.plain_size} at "
                                           f"{met.plain_offset:#x}")
                    return 0
            left -= piece
            i += 1
        return 0

    cdef int check_target(self, const char *name, uint32_t length, const char *target,
                          uint64_t size, uint64_t told) except -1:
        if size == 0 or size > TARGET_MAX:
            self.add(name, length, f"is a symlink with a target of {size} bytes")
        elif size != told:
            self.add(name, length, f"{size} bytes of target, size {told}")
        elif memchr(target, 0, size) != NULL:
            self.add(name, length, "is a symlink with NUL in its target")
        return 0

    cdef int check_xattrs(self, const char *name, uint32_t length, uint64_t ino) except -1:
        for line in xattr_faults(self.bootstrap, ino):
            self.add(name, length, line)
        return 0

    # words

    cdef object what_is_wrong(self, uint64_t ino):
        if ino >= self.numbers:
            return f"the image has numbers below {self.numbers}"
        if self.v5 is not None:
            return record_fault(self.v5, ino)
        return "outside the file, of no type that there is, or its data is in a place that its " \
               "type does not have"

    cdef int tell_inode(self, const char *name, uint32_t length, uint64_t ino) except -1:
        found = self.bootstrap.stat(ino)
        self.tell(
            f"inode: {shown(self.path(name, length))}: ino {found.ino} mode {found.mode:#o} nlink "
            f"{found.nlink} uid {found.uid} gid {found.gid} size {found.size} blocks "
            f"{found.blocks} mtime {found.mtime}.{found.mtime_nsec:09d} rdev {found.rdev:#x}"
        )
        return 0

    cdef int tell_chunk(self, const ChunkSpan *span) except -1:
        if self.tell is not None:
            self.tell(
                f"\t chunk: blob {span.blob_index} index {span.chunk_index} uncompressed offset "
                f"{span.uncompressed_offset:#x} length {span.length:#x}"
            )
        return 0
