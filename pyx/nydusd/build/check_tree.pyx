"""One walk through all metadata of an image, for the checker: every fault becomes one line.

Nothing recurses, and whatever the file holds the walk is bounded: each inode is looked at once,
what lies behind it is claimed (`check_contents`), the open directories are at most `DEPTH_MAX`
(`check_trail`), and the findings as many as the report takes.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from nydusd.build.check_chunks cimport MetChunks
from nydusd.build.check_contents cimport ContentsCheck
from nydusd.build.check_inode cimport record_fault
from nydusd.build.check_trail cimport TRAIL_ROOM, Frame, Trail
from nydusd.rafs.bootstrap cimport Attributes, Bootstrap
from nydusd.rafs.names cimport (
    KIND_DIRECTORY, KIND_SHIFT, NAME_MAX, compare_names, is_dots, is_name,
)
from nydusd.rafs.ondisk_v6 cimport DirentV6
from nydusd.rafs.read_v5 cimport BootstrapV5, Record
from nydusd.rafs.read_v6 cimport BootstrapV6, DirBlock, Inode, entry_name, kind_of_type

from nydusd.build.check_chunks import read_chunk_table
from nydusd.build.node import shown

DEPTH_MAX = 4096            # levels: no path that can be named is deeper, PATH_MAX / 2

cdef enum:
    NSEC_END = 1000000000
    NAMED_MAX = 0xffffffff
    SIZE_BITS = 63


@cython.final
cdef class TreeCheck:
    """The walk through *bootstrap*: findings go to `report.add(path, text)`.

    `report.full` ends it. *tell* is given a line for each inode and chunk, or is None.
    """

    cdef Bootstrap bootstrap
    cdef BootstrapV5 v5         # the same one, by its version
    cdef BootstrapV6 v6
    cdef readonly MetChunks chunks      # that the bootstrap tells of
    cdef Trail trail
    cdef ContentsCheck contents
    cdef object tell
    cdef uint32_t *named        # owned; names of each inode
    cdef uint64_t numbers       # inode numbers are below this
    cdef readonly uint64_t names        # met, the root included
    cdef readonly uint64_t inodes       # met

    def __cinit__(self, Bootstrap bootstrap, report, tell=None):
        self.bootstrap = bootstrap
        self.tell = tell
        self.chunks = MetChunks()
        self.trail = Trail(report)
        self.contents = ContentsCheck(bootstrap, self.chunks, self.trail, tell)
        if isinstance(bootstrap, BootstrapV5):
            self.v5 = bootstrap
            self.numbers = <uint64_t>self.v5.entries + 1
        else:
            self.v6 = bootstrap
            self.numbers = self.v6.slots
        self.named = <uint32_t *>calloc(self.numbers + 1, sizeof(uint32_t))
        if self.named == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.named)

    def run(self):
        """Walk; findings go to the report."""
        cdef uint64_t root = self.bootstrap.root_ino
        for line in read_chunk_table(self.bootstrap, self.chunks):
            self.trail.add(NULL, 0, line)
        self.contents.table = self.chunks.count != 0
        self.names = 1
        if self.visit(NULL, 0, root, KIND_DIRECTORY) and root != self.contents.shared:
            self.enter(NULL, 0, root, root)
        while self.trail.depth and not self.trail.ended:
            if self.v5 is not None:
                self.step_v5(&self.trail.stack[self.trail.depth - 1])
            else:
                self.step_v6(&self.trail.stack[self.trail.depth - 1])
        self.trail.depth = 0
        if not self.trail.ended:
            self.finish()

    cdef int finish(self) except -1:
        """What can be said only when everything has been met."""
        if self.v5 is not None:
            for line in self.chunks.unite():
                self.trail.add(NULL, 0, line)
        for line in self.chunks.overlaps():
            self.trail.add(NULL, 0, line)
        self.check_counts()
        for number, ino in enumerate(self.bootstrap.prefetch_inos):
            if self.trail.ended:
                return 0
            if ino >= self.numbers or self.named[ino] == 0:
                self.trail.add(NULL, 0, f"row {number} of the prefetch table is inode {ino}, "
                                        "which has no name")
        return 0

    cdef int check_counts(self) except -1:
        """The superblock counts what there is; v5 of some builders leaves the root out."""
        cdef uint64_t told = self.bootstrap.inodes_count
        if self.v6 is not None and told != self.names:
            self.trail.add(NULL, 0, f"the superblock counts {told} names, {self.names} were met")
        if self.v5 is None:
            return 0
        if self.inodes != told and self.inodes != told + 1:
            self.trail.add(NULL, 0, f"the superblock counts {told} inodes, {self.inodes} were met")
        if self.names != self.v5.entries:
            self.trail.add(
                NULL, 0,
                f"the inode table has {self.v5.entries} rows, {self.names} names "
                "were met")
        return 0

    cdef int enter(self, const char *name, uint32_t name_len, uint64_t ino,
                   uint64_t parent) except -1:
        """Go into a directory that has been visited and not been entered."""
        cdef Frame *frame
        if self.trail.depth == TRAIL_ROOM:
            self.trail.add(name, name_len,
                           f"is {DEPTH_MAX} levels deep: what is below it is not looked at")
            return 0
        if self.v5 is not None:
            self.contents.check_directory_digest(name, name_len, ino)
        frame = &self.trail.stack[self.trail.depth]
        frame.ino = ino
        frame.parent = parent
        frame.child = 0
        frame.block = 0
        frame.name = name
        frame.name_len = name_len
        frame.last = NULL
        frame.last_len = 0
        frame.dot = frame.dotdot = False
        self.trail.depth += 1
        return 0

    cdef int step_v5(self, Frame *frame) except -1:
        """The next child of the innermost directory, or out of it."""
        cdef Record directory, child
        cdef uint64_t number = frame.child
        if self.v5.load_directory(frame.ino, &directory) != 0 \
                or number >= directory.inode.child_count:
            self.trail.depth -= 1
            return 0
        frame.child += 1
        if self.v5.load_index(directory.inode.child_index + number, &child) != 0:
            self.trail.add(NULL, 0, f"child {number} cannot be read: "
                           + record_fault(self.v5, directory.inode.child_index + number))
            return 0
        name = <const char *>child.name
        length = child.inode.name_size
        if not self.check_name(name, length, f"child {number}"):
            return 0
        if child.kind == KIND_DIRECTORY and child.inode.ino == child.index \
                and child.inode.parent != frame.ino:
            self.trail.add(name, length, f"names directory {child.inode.parent} as its parent, "
                                         f"it is in {frame.ino}")
            return 0
        if child.inode.ino != child.index:
            self.contents.check_further_name(name, length, &child)
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
                self.trail.add(NULL, 0, "has no entries `.` and `..`")
            self.trail.depth -= 1
            return 0
        if self.v6.load_block(&inode, number, &block) != 0:
            self.trail.add(NULL, 0, f"block {number} of its entries is broken or outside the file")
            frame.block += 1
            frame.child = 0
            return 0
        frame.child += 1
        if index + 1 >= block.count:
            frame.block += 1
            frame.child = 0
        dirent = &(<const DirentV6 *>block.data)[index]
        if entry_name(&block, <uint32_t>index, &name, &length) != 0:
            self.trail.add(
                NULL, 0,
                f"entry {index} of block {number} has no name "
                f"that can be: empty, with `/` or NUL, over {NAME_MAX} bytes, or at "
                f"{dirent.name_offset} outside its block")
            return 0
        if dirent.nid >= self.numbers:
            self.trail.add(name, length, f"leads to inode {dirent.nid}, which is behind the file")
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
            self.trail.add(name, length, f"leads to inode {nid} instead of {right}")
        return 0

    cdef bint check_name(self, const char *name, uint32_t length, str which) except -1:
        """Whether a directory may hold *name*."""
        if not is_name(<const uint8_t *>name, length):
            self.trail.add(
                NULL, 0,
                f"{which} has the name {shown(name[:length])!r}: empty, with `/` or "
                f"NUL, or over {NAME_MAX} bytes")
            return False
        if is_dots(<const uint8_t *>name, length):
            self.trail.add(NULL, 0, f"{which} has the name {shown(name[:length])!r}, which every "
                                    "directory has already")
            return False
        return True

    cdef bint in_order(self, Frame *frame, const char *name, uint32_t length) except -1:
        """Whether *name* is behind the one before it; duplicates are not followed."""
        cdef int side = -1
        if frame.last != NULL:
            side = compare_names(frame.last, frame.last_len, name, length)
        if side == 0:
            self.trail.add(name, length, "stands twice in its directory")
            return False
        if side > 0:
            self.trail.add(
                name, length,
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
        if self.trail.ended or self.bootstrap.attributes(ino, &found) != 0:
            return 0
        real = found.mode >> KIND_SHIFT
        if kind != real:
            self.trail.add(name, length, f"its directory says type {kind}, it has {found.mode:#o}")
        if real != KIND_DIRECTORY or ino == self.contents.shared:
            return 0
        if self.named[ino] > 1:
            self.trail.add(name, length, f"directory inode {ino} has another place in the tree")
            return 0
        return self.enter(name, length, ino, frame.ino)

    cdef bint visit(self, const char *name, uint32_t length, uint64_t ino,
                    uint32_t kind) except -1:
        """Count a name of inode *ino* and check it at its first; whether it can be used."""
        cdef Attributes found
        cdef int rc
        if ino >= self.numbers or (rc := self.bootstrap.attributes(ino, &found)) != 0:
            self.trail.add(name, length, f"inode {ino} cannot be read: {self.what_is_wrong(ino)}")
            return False
        if self.tell is not None:
            self.tell_inode(name, length, ino)
        if self.named[ino] < NAMED_MAX:
            self.named[ino] += 1
        if self.named[ino] > 1:
            return True
        self.inodes += 1
        if found.size >> SIZE_BITS:
            self.trail.add(name, length, f"has a size of {found.size} bytes")
        if found.mtime_nsec >= NSEC_END:
            self.trail.add(name, length, f"was changed {found.mtime_nsec} ns behind a second")
        if found.mode >> 16:
            self.trail.add(name, length, f"has mode {found.mode:#o}")
        if found.nlink == 0:
            self.trail.add(name, length, "has 0 links")
        if self.v5 is not None:
            self.contents.visit_v5(name, length, ino)
        else:
            self.contents.visit_v6(name, length, ino)
        if not self.trail.ended:
            self.contents.check_xattrs(name, length, ino)
        return not self.trail.ended

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
            f"inode: {shown(self.trail.path(name, length))}: ino {found.ino} mode "
            f"{found.mode:#o} nlink {found.nlink} uid {found.uid} gid {found.gid} "
            f"size {found.size} blocks {found.blocks} "
            f"mtime {found.mtime}.{found.mtime_nsec:09d} rdev {found.rdev:#x}"
        )
        return 0
