"""A v6 bootstrap from a numbered tree: layout of the metadata area, then all bytes of the file.

Placement rules: rafs-format, "how the builder lays out metadata"; tables: ondisk_v6. The bytes
are those of the reference's builder, revision by revision. Not for several threads at a time.
"""

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from nydusd.rafs.ondisk_v6 cimport (
    V6_BLOBS_MAX,
    V6_BLOCK_BITS,
    V6_CHUNK_INDEXES,
    V6_COMPAT_RAFS,
    V6_DEVICE_SLOT_UNIT,
    V6_DEVICE_SLOTS_OFFSET,
    V6_EXT_SUPERBLOCK_OFFSET,
    V6_FORMAT_EXTENDED,
    V6_INCOMPAT,
    V6_LAYOUT_CHUNK,
    V6_LAYOUT_INLINE,
    V6_LAYOUT_PLAIN,
    V6_LAYOUT_SHIFT,
    V6_MAGIC,
    V6_MAPPED_ALIGNMENT,
    V6_ROOT_NID,
    V6_SLOT_BITS,
    V6_SUPERBLOCK_OFFSET,
    V6_TYPE_BLOCK,
    V6_TYPE_CHAR,
    V6_TYPE_DIRECTORY,
    V6_TYPE_FIFO,
    V6_TYPE_REGULAR,
    V6_TYPE_SOCKET,
    V6_TYPE_SYMLINK,
    V6_XATTR_ACL_ACCESS,
    V6_XATTR_ACL_DEFAULT,
    V6_XATTR_SECURITY,
    V6_XATTR_TRUSTED,
    V6_XATTR_USER,
    BlobEntryV6,
    ChunkIndexV6,
    DeviceSlotV6,
    DirentV6,
    ExtSuperblockV6,
    InodeExtendedV6,
    SuperblockV6,
    XattrEntryV6,
    XattrHeaderV6,
)
from nydusd.rafs.write_chunks cimport ChunkTable
from nydusd.rafs.write_tree cimport TreeNode

from nydusd.base.errors import BuildError
from nydusd.rafs.blobs import BlobFeature, SuperblockFlag

cdef enum:
    BLOCK = 4096
    SLOT = 32
    SLOTS = BLOCK // SLOT
    INODE = sizeof(InodeExtendedV6)
    S_IFMT = 0o170000
    S_IFSOCK = 0o140000
    S_IFLNK = 0o120000
    S_IFREG = 0o100000
    S_IFBLK = 0o060000
    S_IFDIR = 0o040000
    S_IFCHR = 0o020000
    S_IFIFO = 0o010000
    XATTR_AREA_MAX = 12 + 4 * 65534     # bytes; the count has 16 bits
    XATTR_VALUE_MAX = 0xffff

XATTR_PREFIXES = (
    (b"user.", V6_XATTR_USER),
    (b"system.posix_acl_access", V6_XATTR_ACL_ACCESS),
    (b"system.posix_acl_default", V6_XATTR_ACL_DEFAULT),
    (b"trusted.", V6_XATTR_TRUSTED),
    (b"security.", V6_XATTR_SECURITY),
)


cdef inline uint64_t align(uint64_t value, uint64_t unit) noexcept nogil:
    return (value + unit - 1) // unit * unit


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


def shown(TreeNode node):
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


# Entries of one directory on their way into blocks.
cdef struct DirectoryBlock:
    uint8_t *at             # of this block or tail, in the bootstrap
    uint32_t entry_count    # written so far
    uint32_t name_bytes     # of them


@cython.final
cdef class _Image:
    """The bytes of one bootstrap while they are filled in."""

    cdef bytearray data
    cdef uint8_t *base          # borrowed from data
    cdef uint64_t size
    cdef uint64_t shift         # what the tables before the metadata area take
    cdef ChunkTable chunks
    cdef uint32_t chunk_size
    cdef uint32_t root_number

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
                (node.area_size - INODE - sizeof(XattrHeaderV6)) // sizeof(XattrEntryV6) + 1
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


cdef bytes blob_entry(object blob, object settings):
    """The blob table's row for *blob* (`BlobInfo`)."""
    cdef BlobEntryV6 entry
    cdef bytes zeros = bytes(sizeof(entry))
    cdef bytes name = blob.blob_id.encode()
    cdef bytes digest
    memcpy(&entry, <const char *>zeros, sizeof(entry))
    memcpy(entry.blob_id, <const char *>name, len(name))
    entry.blob_index = blob.blob_index
    entry.chunk_size = blob.chunk_size
    entry.chunk_count = blob.chunk_count
    entry.compressor = int(blob.compressor)
    entry.digester = int(blob.digester)
    entry.features = int(blob.features)
    entry.compressed_size = blob.compressed_size
    entry.uncompressed_size = blob.uncompressed_size
    entry.toc_size = blob.toc_size
    entry.ci_compressor = int(blob.ci_compressor)
    entry.ci_offset = blob.ci_offset
    entry.ci_compressed_size = blob.ci_compressed_size
    entry.ci_uncompressed_size = blob.ci_uncompressed_size
    if blob.toc_digest:
        digest = blob.toc_digest
        memcpy(entry.toc_digest, <const char *>digest, sizeof(entry.toc_digest))
    if blob.features & BlobFeature.SEPARATE and not blob.features & BlobFeature.INLINED_FS_META:
        digest = bytes.fromhex(blob.meta_blob_id)
        memcpy(entry.meta_digest, <const char *>digest, sizeof(entry.meta_digest))
        entry.meta_size = blob.meta_size
    return (<const char *>&entry)[:sizeof(entry)]


cdef int put_device_slots(_Image image, object settings) except -1:
    cdef DeviceSlotV6 slot
    cdef bytes zeros = bytes(sizeof(slot))
    cdef bytes name
    cdef uint64_t end = image.size, at = V6_DEVICE_SLOTS_OFFSET
    for blob in settings.blobs:
        name = blob.blob_id.encode()
        memcpy(&slot, <const char *>zeros, sizeof(slot))
        memcpy(slot.tag, <const char *>name, len(name))
        slot.blocks = blob.uncompressed_size // BLOCK
        if settings.revision.mapped_addresses:
            end = align(end, V6_MAPPED_ALIGNMENT)
            slot.mapped_blkaddr = <uint32_t>(end // BLOCK)
            end += blob.uncompressed_size
        memcpy(image.base + at, &slot, sizeof(slot))
        at += sizeof(slot)
    return 0


cdef int put_superblocks(_Image image, object settings, uint32_t name_count, bint has_xattr,
                         ExtSuperblockV6 *ext) except -1:
    cdef SuperblockV6 sb
    cdef bytes zeros = bytes(sizeof(sb))
    memcpy(&sb, <const char *>zeros, sizeof(sb))
    sb.magic = V6_MAGIC
    sb.feature_compat = V6_COMPAT_RAFS
    sb.block_bits = V6_BLOCK_BITS
    sb.root_nid = V6_ROOT_NID
    sb.inos = name_count
    sb.blocks = sum(blob.uncompressed_size // BLOCK for blob in settings.blobs)
    sb.meta_blkaddr = <uint32_t>(image.shift // BLOCK)
    sb.feature_incompat = V6_INCOMPAT
    sb.extra_devices = len(settings.blobs)
    sb.devt_slotoff = V6_DEVICE_SLOT_UNIT
    ext.flags = settings.flags(has_xattr)
    if all(blob.features & BlobFeature.INLINED_CHUNK_DIGEST for blob in settings.blobs):
        ext.flags |= int(SuperblockFlag.INLINED_CHUNK_DIGEST)
    if settings.revision.encryption_flag:
        ext.flags |= int(SuperblockFlag.ENCRYPTION_NONE)
    ext.chunk_size = settings.chunk_size
    memcpy(image.base + V6_SUPERBLOCK_OFFSET, &sb, sizeof(sb))
    memcpy(image.base + V6_EXT_SUPERBLOCK_OFFSET, ext, sizeof(ext[0]))
    return 0


def check_blobs(list blobs):
    """`BuildError` unless a v6 blob table can hold these blobs."""
    if len(blobs) > V6_BLOBS_MAX:
        raise BuildError(f"{len(blobs)} blobs: a v6 image has at most {V6_BLOBS_MAX}")
    for blob in blobs:
        if not 0 < len(blob.blob_id.encode()) <= 64:
            raise BuildError(f"blob id {blob.blob_id!r}: v6 stores 1 to 64 bytes")
        if blob.uncompressed_size // BLOCK > 0xffffffff:
            raise BuildError(
                f"blob {blob.blob_id}: {blob.uncompressed_size} plain bytes are too many"
            )


def write_v6(TreeNode root, list nodes, ChunkTable chunks, object settings, list prefetch):
    """The bytes of a v6 bootstrap: *nodes* are the numbered tree of *root*, *settings* an
    `ImageSettings`, *prefetch* the nodes of the prefetch table, None for a row of 0.

    `BuildError` for what v6 cannot store.
    """
    cdef _Layout layout = _Layout()
    cdef _Image image
    cdef ExtSuperblockV6 ext
    cdef bytes zeros = bytes(sizeof(ext))
    cdef bytes table
    cdef bytearray chunk_table
    cdef TreeNode node
    cdef uint64_t shift = 0, at, metadata_end
    cdef uint32_t nid, root_number
    root_number = settings.revision.root_number
    if settings.is_layered:
        root_number = settings.revision.layered_root_number
    memcpy(&ext, <const char *>zeros, sizeof(ext))
    check_blobs(settings.blobs)
    layout.place_tree(root)
    chunk_table = chunks.chunk_table(nodes, settings.chunk_size)
    table = b"".join([blob_entry(blob, settings) for blob in settings.blobs])
    ext.blob_table_offset = align(
        V6_DEVICE_SLOTS_OFFSET + len(settings.blobs) * sizeof(DeviceSlotV6), BLOCK
    )
    ext.blob_table_size = len(table)
    at = ext.blob_table_offset + len(table)
    if table:
        if prefetch:
            ext.prefetch_table_offset = at
            ext.prefetch_table_size = len(prefetch) * 4
        shift = align(at + ext.prefetch_table_size, BLOCK)
    metadata_end = align(shift + layout.position, BLOCK)
    ext.chunk_table_offset = metadata_end
    ext.chunk_table_size = len(chunk_table)
    image = _Image(align(metadata_end + len(chunk_table), BLOCK), shift, chunks,
                   settings.chunk_size, root_number)
    put_superblocks(image, settings, len(nodes), any([bool((<TreeNode>n).xattrs) for n in nodes]),
                    &ext)
    put_device_slots(image, settings)
    image.data[ext.blob_table_offset:at] = table
    image.base = <uint8_t *>image.data
    if ext.prefetch_table_size:
        for node in prefetch:
            nid = 0 if node is None else <uint32_t>(node.offset >> V6_SLOT_BITS)
            memcpy(image.base + at, &nid, sizeof(nid))
            at += sizeof(nid)
    image.put_tree(root)
    memcpy(image.base + metadata_end, <const char *>chunk_table, len(chunk_table))
    return image.data
