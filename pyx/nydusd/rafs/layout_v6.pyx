"""Where the inodes, directories and symlinks of a v6 image go in its metadata area.

Rules: rafs-format, "how the builder lays out metadata". Places are offsets in the area as if it
began at 0, one block before what it holds; writing there is for `write_inodes_v6`. Not for several
threads at a time.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from posix.stat cimport S_IFDIR, S_IFLNK, S_IFMT, S_IFREG

from nydusd.rafs.ondisk_v6 cimport (
    V6_LAYOUT_CHUNK, V6_LAYOUT_INLINE, V6_LAYOUT_PLAIN, V6_XATTR_ACL_ACCESS, V6_XATTR_ACL_DEFAULT,
    V6_XATTR_SECURITY, V6_XATTR_TRUSTED, V6_XATTR_USER, ChunkIndexV6, DirentV6, InodeExtendedV6,
    XattrEntryV6, XattrHeaderV6,
)
from nydusd.rafs.write_tree cimport TreeNode, align

from nydusd.base.errors import BuildError

cdef enum:
    BLOCK = 4096
    SLOT = 32
    SLOTS = BLOCK // SLOT
    INODE = sizeof(InodeExtendedV6)
    XATTR_AREA_MAX = 12 + 4 * 65534     # bytes; the count has 16 bits
    XATTR_VALUE_MAX = 0xffff

XATTR_PREFIXES = (
    (b"user.", V6_XATTR_USER),
    (b"system.posix_acl_access", V6_XATTR_ACL_ACCESS),
    (b"system.posix_acl_default", V6_XATTR_ACL_DEFAULT),
    (b"trusted.", V6_XATTR_TRUSTED),
    (b"security.", V6_XATTR_SECURITY),
)


# Blocks with free slots, first in first out.
cdef struct Queue:
    uint64_t *blocks    # owned by the layout
    size_t head, tail, room


@cython.final
cdef class _Layout:
    """Where inodes and directory data go in the metadata area, which begins one block before 0."""

    cdef uint64_t position
    cdef Queue free_blocks[SLOTS]       # by number of free slots

    def __cinit__(self):
        self.position = BLOCK

    def __dealloc__(self):
        cdef int i
        for i in range(SLOTS):
            free(self.free_blocks[i].blocks)

    cdef int give(self, uint64_t offset) except -1:
        """Let others use what is free behind *offset* in its block."""
        cdef Queue *queue
        cdef size_t room
        cdef void *grown
        if offset % BLOCK == 0:
            return 0
        queue = &self.free_blocks[(BLOCK - offset % BLOCK) // SLOT]
        if queue.tail == queue.room:
            room = queue.room * 2 if queue.room else 16
            grown = realloc(queue.blocks, room * sizeof(uint64_t))
            if grown == NULL:
                raise MemoryError
            queue.blocks = <uint64_t *>grown
            queue.room = room
        queue.blocks[queue.tail] = offset // BLOCK * BLOCK
        queue.tail += 1
        return 0

    cdef uint64_t take(self, uint64_t size) except? 1:
        """Room for *size* bytes in a block that is partly used; 0 when there is none."""
        cdef Queue *queue
        cdef uint64_t offset
        cdef int wanted, slots
        if size >= BLOCK:
            return 0
        wanted = <int>((size + SLOT - 1) // SLOT)
        for slots in range(wanted, SLOTS):
            queue = &self.free_blocks[slots]
            if queue.head < queue.tail:
                offset = queue.blocks[queue.head] + BLOCK - slots * SLOT
                queue.head += 1
                self.give(offset + wanted * SLOT)
                return offset
        return 0

    cdef int place_with_data(self, TreeNode node) except -1:
        """Place a directory or a symlink, whose last partial block goes behind the inode."""
        cdef uint64_t tail = node.data_size % BLOCK
        cdef uint64_t size
        if tail and node.area_size + tail <= BLOCK:
            node.layout = V6_LAYOUT_INLINE
            size = node.area_size + tail
            node.offset = self.take(size)
            if not node.offset:
                if BLOCK - self.position % BLOCK < size:
                    self.give(self.position)
                    self.position = align(self.position, BLOCK)
                node.offset = self.position
                self.position += size
            if node.data_size != tail:
                self.give(self.position)
                self.position = align(self.position, BLOCK)
            node.data_offset = self.position
            self.position += node.data_size - tail
        else:
            node.layout = V6_LAYOUT_PLAIN
            node.offset = self.take(node.area_size)
            if not node.offset:
                node.offset = self.position
                self.position += node.area_size
            self.give(self.position)
            self.position = align(self.position, BLOCK)
            node.data_offset = self.position
            self.position = align(self.position + node.data_size, BLOCK)
        self.position = align(self.position, SLOT)
        return 0

    cdef int place_file(self, TreeNode node) except -1:
        cdef uint64_t size
        node.layout = V6_LAYOUT_CHUNK
        if node.first_name is not None:
            node.offset = node.first_name.offset
            return 0
        size = align(node.area_size, 8) + sizeof(ChunkIndexV6) * <uint64_t>node.chunk_count
        node.offset = self.take(size)
        if not node.offset:
            node.offset = self.position
            self.position += size
        self.position = align(self.position, SLOT)
        return 0

    cdef int place(self, TreeNode node) except -1:
        cdef uint32_t kind = node.mode & S_IFMT
        node.area_size = <uint32_t>(INODE + xattr_area_size(node))
        if kind == S_IFDIR:
            node.data_size = directory_size(node)
            self.place_with_data(node)
        elif kind == S_IFLNK:
            node.data_size = len(node.target)
            self.place_with_data(node)
        elif kind == S_IFREG:
            self.place_file(node)
        else:
            node.layout = V6_LAYOUT_PLAIN
            node.offset = self.position
            self.position = align(self.position + node.area_size, SLOT)
        return 0

    cdef int place_tree(self, TreeNode root) except -1:
        """Place all: a directory, its other children, then its directories one by one."""
        cdef list waiting = [root]
        cdef list directories
        cdef TreeNode directory, child
        while waiting:
            directory = waiting.pop()
            self.place(directory)
            directories = []
            for child in directory.children:
                if child.mode & S_IFMT == S_IFDIR:
                    directories.append(child)
                else:
                    self.place(child)
            directories.reverse()
            waiting.extend(directories)
        return 0


cdef uint64_t xattr_area_size(TreeNode node) except? 1:
    cdef uint64_t size
    cdef bytes name, value
    if not node.xattrs:
        return 0
    size = sizeof(XattrHeaderV6)
    for name, value in node.xattrs:
        if len(value) > XATTR_VALUE_MAX:
            raise BuildError(
                f"{shown(node)}: the value of attribute {name!r} has {len(value)} bytes, "
                f"v6 stores at most {XATTR_VALUE_MAX}"
            )
        size = align(
            size + sizeof(XattrEntryV6) + len(name) - len(xattr_prefix(name)[0]) + len(value), 4
        )
    if size > XATTR_AREA_MAX:
        raise BuildError(
            f"{shown(node)}: its attributes take {size} bytes, v6 stores at most {XATTR_AREA_MAX}"
        )
    return size


cdef str shown(TreeNode node):
    """How messages call *node*."""
    return (node.path or node.name).decode(errors="backslashreplace")


def xattr_prefix(bytes name):
    """The row of the prefix table for an attribute's full name; `BuildError` for others."""
    for row in XATTR_PREFIXES:
        if name.startswith(row[0]):
            return row
    raise BuildError(f"attribute {name!r} has a prefix that v6 cannot store")


cdef inline uint64_t after_entry(uint64_t used, uint64_t name_size) noexcept nogil:
    """Bytes of a directory after one more entry: an entry does not go across two blocks."""
    cdef uint64_t size = sizeof(DirentV6) + name_size
    if used % BLOCK + size > BLOCK:
        used = align(used, BLOCK)
    return used + size


cdef uint64_t directory_size(TreeNode directory) except? 1:
    """Bytes of all entries, in sort order; every block but the last counts in full."""
    cdef uint64_t used = 0
    cdef TreeNode child
    cdef bint seen_dot = False, seen_dotdot = False
    for child in directory.children:
        if not seen_dot and child.name > b".":
            used = after_entry(used, 1)
            seen_dot = True
        if not seen_dotdot and child.name > b"..":
            used = after_entry(used, 2)
            seen_dotdot = True
        used = after_entry(used, len(child.name))
    if not seen_dot:
        used = after_entry(used, 1)
    if not seen_dotdot:
        used = after_entry(used, 2)
    return used


cdef uint64_t place_tree(TreeNode root) except 0:
    cdef _Layout layout = _Layout()
    layout.place_tree(root)
    return layout.position
