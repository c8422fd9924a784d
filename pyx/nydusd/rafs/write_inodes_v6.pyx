"""The metadata area of a v6 bootstrap: inodes, attributes, chunk numbers, directories, targets.

`layout_v6` has given each node its place; structs: ondisk_v6. The tables before and behind the
area are `write_v6`'s. Not for several threads at a time.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.stat cimport S_IFBLK, S_IFCHR, S_IFDIR, S_IFIFO, S_IFLNK, S_IFMT, S_IFREG, S_IFSOCK

from nydusd.rafs.ondisk_v6 cimport (
    V6_CHUNK_INDEXES, V6_FORMAT_EXTENDED, V6_LAYOUT_INLINE, V6_LAYOUT_SHIFT, V6_SLOT_BITS,
    V6_TYPE_BLOCK, V6_TYPE_CHAR, V6_TYPE_DIRECTORY, V6_TYPE_FIFO, V6_TYPE_REGULAR, V6_TYPE_SOCKET,
    V6_TYPE_SYMLINK, ChunkIndexV6, DirentV6, InodeExtendedV6, XattrEntryV6, XattrHeaderV6,
)
from nydusd.rafs.write_chunks cimport ChunkTable
from nydusd.rafs.write_tree cimport TreeNode, align

from nydusd.rafs.layout_v6 import xattr_prefix

cdef enum:
    BLOCK = 4096


cdef uint8_t dirent_type(uint32_t mode) noexcept nogil:
    cdef uint32_t kind = mode & S_IFMT
    if kind == S_IFREG:
        return V6_TYPE_REGULAR
    if kind == S_IFDIR:
        return V6_TYPE_DIRECTORY
    if kind == S_IFLNK:
        return V6_TYPE_SYMLINK
    if kind == S_IFCHR:
        return V6_TYPE_CHAR
    if kind == S_IFBLK:
        return V6_TYPE_BLOCK
    if kind == S_IFIFO:
        return V6_TYPE_FIFO
    if kind == S_IFSOCK:
        return V6_TYPE_SOCKET
    return 0


@cython.final
cdef class ImageBytes:
    """The bytes of one bootstrap while they are filled in."""

    def __cinit__(self, uint64_t size, uint64_t shift, ChunkTable chunks, uint32_t chunk_size,
                  uint32_t root_number):
        self.data = bytearray(size)
        self.base = <uint8_t *>self.data
        self.size = size
        self.shift = shift
        self.chunks = chunks
        self.chunk_size = chunk_size
        self.root_number = root_number

    cdef uint8_t *room(self, uint64_t offset, uint64_t size) except NULL:
        """*size* bytes at *offset* of the metadata area; a layout that does not fit is a bug."""
        if offset > self.size - self.shift or size > self.size - self.shift - offset:
            raise AssertionError(f"{size} bytes at {offset} are outside of the bootstrap")
        return self.base + self.shift + offset

    cdef int put_node(self, TreeNode node, TreeNode parent) except -1:
        cdef InodeExtendedV6 inode
        cdef uint32_t kind = node.mode & S_IFMT
        cdef uint8_t *at = self.room(node.offset, node.area_size)
        cdef bytes zeros = bytes(sizeof(inode))
        memcpy(&inode, <const char *>zeros, sizeof(inode))
        inode.format = V6_FORMAT_EXTENDED | <uint16_t>(node.layout << V6_LAYOUT_SHIFT)
        if node.xattrs:
            inode.xattr_count = <uint16_t>(
                (node.area_size - sizeof(inode) - sizeof(XattrHeaderV6)) // sizeof(XattrEntryV6) + 1
            )
        inode.mode = <uint16_t>node.mode
        inode.ino = node.ino if node.index != 1 else self.root_number
        inode.uid = node.uid
        inode.gid = node.gid
        inode.mtime = node.mtime
        inode.mtime_nsec = node.mtime_nsec
        inode.nlink = node.nlink
        inode.size = node.size
        if kind == S_IFDIR or kind == S_IFLNK:
            inode.size = node.data_size
            inode.content = <uint32_t>((node.data_offset + self.shift) // BLOCK)
        elif kind == S_IFREG:
            inode.content = self.put_chunks(node)
        elif kind == S_IFCHR or kind == S_IFBLK:
            inode.content = node.rdev
        memcpy(at, &inode, sizeof(inode))
        if node.xattrs:
            self.put_xattrs(node, at + sizeof(inode))
        if kind == S_IFDIR:
            self.put_directory(node, parent)
        elif kind == S_IFLNK:
            self.put_target(node)
        return 0

    cdef uint32_t put_chunks(self, TreeNode node) except? 0xffffffff:
        """Write the chunk indexes; the chunk format of the inode."""
        cdef uint64_t offset = align(node.offset + node.area_size, sizeof(ChunkIndexV6))
        cdef uint8_t *at = self.room(offset, sizeof(ChunkIndexV6) * <uint64_t>node.chunk_count)
        cdef ChunkIndexV6 index
        cdef uint64_t previous = 0, unit = self.chunk_size
        cdef uint32_t blob = 0, bits = 0, k, number
        cdef bint adjacent = True
        self.chunks.check_references(node, self.chunk_size)
        for k in range(node.chunk_count):
            number = self.chunks.references[node.first_reference + k]
            record = &self.chunks.records[number]
            index.chunk_low = <uint16_t>(record.index & 0xffff)
            index.device = <uint16_t>(
                ((record.blob_index + 1) & 0xff) | ((record.index >> 16) << 8)
            )
            index.blkaddr = <uint32_t>(record.uncompressed_offset // BLOCK)
            memcpy(at + sizeof(index) * k, &index, sizeof(index))
            if k and (
                record.blob_index != blob
                or record.uncompressed_offset != previous + self.chunk_size
            ):
                adjacent = False
            blob = record.blob_index
            previous = record.uncompressed_offset
        # A kernel that reads the plain blob needs only the first index of such a file.
        while adjacent and unit < node.size:
            unit *= 2
        while unit > BLOCK:
            unit //= 2
            bits += 1
        return V6_CHUNK_INDEXES | bits

    cdef int put_xattrs(self, TreeNode node, uint8_t *at) except -1:
        cdef XattrEntryV6 entry
        cdef bytes name, value, prefix, rest
        cdef uint64_t size = sizeof(XattrHeaderV6)      # the header is zeros
        for name, value in node.xattrs:
            prefix, number = xattr_prefix(name)
            rest = name[len(prefix):]
            entry.name_len = <uint8_t>len(rest)
            entry.prefix = number
            entry.value_len = <uint16_t>len(value)
            memcpy(at + size, &entry, sizeof(entry))
            size += sizeof(entry)
            memcpy(at + size, <const char *>rest, len(rest))
            size += len(rest)
            memcpy(at + size, <const char *>value, len(value))
            size = align(size + len(value), 4)
        return 0

    cdef int put_target(self, TreeNode node) except -1:
        cdef const char *target = node.target
        cdef uint64_t tail = node.data_size % BLOCK if node.layout == V6_LAYOUT_INLINE else 0
        cdef uint64_t full = node.data_size - tail
        if full:
            memcpy(self.room(node.data_offset, full), target, full)
        if tail:
            memcpy(self.room(node.offset + node.area_size, tail), target + full, tail)
        return 0

    cdef int put_directory(self, TreeNode node, TreeNode parent) except -1:
        """Write the directory's entries, block by block."""
        cdef list entries = []
        cdef uint64_t full, used = 0, begin = 0
        cdef TreeNode child
        cdef bint seen_dot = False, seen_dotdot = False
        cdef Py_ssize_t first = 0, k
        full = node.data_size
        if node.layout == V6_LAYOUT_INLINE:
            full -= node.data_size % BLOCK
        for child in node.children:
            if not seen_dot and child.name > b".":
                entries.append((b".", node))
                seen_dot = True
            if not seen_dotdot and child.name > b"..":
                entries.append((b"..", parent))
                seen_dotdot = True
            entries.append((child.name, child))
        if not seen_dot:
            entries.append((b".", node))
        if not seen_dotdot:
            entries.append((b"..", parent))
        for k in range(len(entries)):
            size = sizeof(DirentV6) + len(<bytes>(<tuple>entries[k])[0])
            if used + size > BLOCK:
                self.put_block(self.room(node.data_offset + begin, BLOCK), BLOCK, entries, first, k)
                first = k
                begin += BLOCK
                used = 0
            used += size
        if begin < full:
            self.put_block(self.room(node.data_offset + begin, used), used, entries, first,
                           len(entries))
        else:
            self.put_block(self.room(node.offset + node.area_size, used), used, entries, first,
                           len(entries))
        return 0

    cdef int put_block(self, uint8_t *at, uint64_t size, list entries, Py_ssize_t first,
                       Py_ssize_t end) except -1:
        cdef DirentV6 dirent
        cdef uint64_t name_offset = <uint64_t>(end - first) * sizeof(DirentV6)
        cdef Py_ssize_t k
        cdef tuple entry
        cdef bytes name
        cdef TreeNode node
        dirent.reserved = 0
        for k in range(first, end):
            entry = entries[k]
            name = entry[0]
            node = entry[1]
            if name_offset + len(name) > size:
                raise AssertionError("a directory block overflows")
            dirent.nid = node.offset >> V6_SLOT_BITS
            dirent.name_offset = <uint16_t>name_offset
            dirent.file_type = dirent_type(node.mode)
            memcpy(at + <uint64_t>(k - first) * sizeof(dirent), &dirent, sizeof(dirent))
            memcpy(at + name_offset, <const char *>name, len(name))
            name_offset += len(name)
        return 0

    cdef int put_tree(self, TreeNode root) except -1:
        cdef list waiting = [(root, root)]
        cdef TreeNode directory, parent, child
        while waiting:
            directory, parent = waiting.pop()
            self.put_node(directory, parent)
            for child in directory.children:
                if child.mode & S_IFMT == S_IFDIR:
                    waiting.append((child, directory))
                elif child.first_name is None or child.offset != child.first_name.offset:
                    self.put_node(child, directory)
        return 0
