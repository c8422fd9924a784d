"""Reader of v6 bootstraps: an EROFS walker, with the places of file data in RAFS terms.

Opening reads the tables and nothing else (`tables_v6`), so an image of a million inodes opens as
fast as one of ten. After that every request starts from the number of an inode's 32-byte slot
(nid) and reads the few bytes it needs, each through a bounds check of the mapping. Any thread, no
GIL. Facts of the format: docs/formats/rafs-v6.md; EROFS: fs/erofs of Linux.
"""

cimport cython
from libc.errno cimport E2BIG, EINVAL, EIO, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, ERANGE
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.bootstrap cimport (
    SPAN_DIRECT, Attributes, BlobLimit, Bootstrap, ChunkSpan, DirEntry, XattrEntry,
)
from nydusd.rafs.names cimport (
    KIND_BLOCK, KIND_CHAR, KIND_DIRECTORY, KIND_FIFO, KIND_REGULAR, KIND_SHIFT, KIND_SOCKET,
    KIND_SYMLINK, NAME_MAX, compare_names, is_device, is_kind, is_name,
)
from nydusd.rafs.ondisk_v6 cimport (
    V6_EXT_SUPERBLOCK_OFFSET, V6_FORMAT_EXTENDED, V6_LAYOUT_CHUNK, V6_LAYOUT_INLINE,
    V6_LAYOUT_PLAIN, V6_LAYOUT_SHIFT, V6_SLOT_BITS, V6_SUPERBLOCK_OFFSET, V6_TYPE_BLOCK,
    V6_TYPE_CHAR, V6_TYPE_DIRECTORY, V6_TYPE_FIFO, V6_TYPE_REGULAR, V6_TYPE_SOCKET,
    V6_TYPE_SYMLINK, V6_XATTR_ACL_ACCESS, V6_XATTR_ACL_DEFAULT, V6_XATTR_SECURITY,
    V6_XATTR_TRUSTED, V6_XATTR_USER, ChunkIndexV6, DirentV6, ExtSuperblockV6, InodeCompactV6,
    InodeExtendedV6, SuperblockV6, XattrEntryV6, XattrHeaderV6,
)

from nydusd.base.errors import BootstrapError
from nydusd.rafs.blobs import BlobFeature, SuperblockFlag
from nydusd.rafs.tables_v6 import read_tables

cdef enum:
    COOKIE_INDEX_BITS = 12      # a cookie is block << 12 | index + 1: 4096 bytes hold 341 entries


cdef uint32_t kind_of_type(uint8_t file_type) noexcept nogil:
    """S_IFMT bits >> 12 for a directory entry's type; 0 for one that is unknown."""
    if file_type == V6_TYPE_REGULAR:
        return KIND_REGULAR
    if file_type == V6_TYPE_DIRECTORY:
        return KIND_DIRECTORY
    if file_type == V6_TYPE_SYMLINK:
        return KIND_SYMLINK
    if file_type == V6_TYPE_CHAR:
        return KIND_CHAR
    if file_type == V6_TYPE_BLOCK:
        return KIND_BLOCK
    if file_type == V6_TYPE_FIFO:
        return KIND_FIFO
    if file_type == V6_TYPE_SOCKET:
        return KIND_SOCKET
    return 0


cdef inline const char *xattr_prefix(uint8_t prefix, uint32_t *length) noexcept nogil:
    """What stands before an attribute's stored name; NULL for a number that is unknown."""
    if prefix == V6_XATTR_USER:
        length[0] = 5
        return b"user."
    if prefix == V6_XATTR_ACL_ACCESS:
        length[0] = 23
        return b"system.posix_acl_access"
    if prefix == V6_XATTR_ACL_DEFAULT:
        length[0] = 24
        return b"system.posix_acl_default"
    if prefix == V6_XATTR_TRUSTED:
        length[0] = 8
        return b"trusted."
    if prefix == V6_XATTR_SECURITY:
        length[0] = 9
        return b"security."
    return NULL


cdef int entry_name(const DirBlock *block, uint32_t index, const char **name,
                    uint32_t *name_len) noexcept nogil:
    """The name of entry *index* of a block: 1 to 255 bytes without `/` and NUL; else -EIO."""
    cdef const DirentV6 *entries = <const DirentV6 *>block.data
    cdef uint32_t start = entries[index].name_offset
    cdef uint32_t end = block.size
    cdef const void *zero
    if index + 1 < block.count:
        end = entries[index + 1].name_offset
    if end > block.size or start >= end:
        return -EIO
    if index + 1 == block.count:    # the last name may be padded
        zero = memchr(block.data + start, 0, end - start)
        if zero != NULL:
            end = <uint32_t>(<const uint8_t *>zero - block.data)
    if not is_name(block.data + start, end - start):
        return -EIO
    name[0] = <const char *>block.data + start
    name_len[0] = end - start
    return 0


@cython.final
cdef class BootstrapV6(Bootstrap):
    """The v6 bootstrap in *file*; `BootstrapError` says what of its tables is not as it must be."""

    def __cinit__(self, Mapping file):
        cdef const SuperblockV6 *superblock
        cdef const ExtSuperblockV6 *extended
        cdef uint32_t i
        tables = read_tables(file)
        superblock = <const SuperblockV6 *>file.at(V6_SUPERBLOCK_OFFSET, sizeof(SuperblockV6))
        extended = <const ExtSuperblockV6 *>file.at(V6_EXT_SUPERBLOCK_OFFSET,
                                                    sizeof(ExtSuperblockV6))
        if superblock == NULL or extended == NULL:
            raise BootstrapError("v6 bootstrap: cut while it was opened")
        self.file = file
        self.version = 6
        self.block_bits = superblock.block_bits
        self.meta_offset = <uint64_t>superblock.meta_blkaddr << self.block_bits
        if self.meta_offset < file.size:
            self.slots = (file.size - self.meta_offset) >> V6_SLOT_BITS
        self.root_ino = superblock.root_nid
        self.inodes_count = superblock.inos
        self.begin(extended.flags, tables.blobs)
        self.chunk_size = extended.chunk_size
        self.prefetch_inos = tables.prefetch_inos
        self.tarfs = bool(self.flags & SuperblockFlag.TARFS)
        uncounted = BlobFeature.TARFS | BlobFeature.IS_CHUNKDICT_GENERATED
        for i in range(self.limits_count):
            info = self.blobs[i]
            if not info.features & uncounted:
                self.limits[i].chunk_count = info.chunk_count
            self.limits[i].uncompressed_end = (info.uncompressed_size + 4095) & ~4095
        self.check_root()

    def check_root(self):
        """`BootstrapError` unless the root is a directory."""
        cdef Inode root
        rc = self.load_inode(self.root_ino, &root)
        if rc != 0 or root.mode >> KIND_SHIFT != KIND_DIRECTORY:
            raise BootstrapError(
                f"v6 bootstrap: root inode {self.root_ino} is not a directory: the file is "
                "corrupt or cut, get or build it again"
            )

    cdef int load_inode(self, uint64_t nid, Inode *out) noexcept nogil:
        """The inode in slot *nid*: 0, -ENOENT no such slot, -EIO no inode can be like this."""
        cdef const InodeExtendedV6 *extended
        cdef const InodeCompactV6 *compact
        cdef const uint8_t *raw
        cdef uint32_t format, xattr_count, kind
        cdef uint64_t header = sizeof(InodeCompactV6)
        if nid >= self.slots:
            return -ENOENT
        out.offset = self.meta_offset + (nid << V6_SLOT_BITS)
        raw = self.file.at(out.offset, sizeof(InodeCompactV6))
        if raw == NULL:
            return -EIO
        compact = <const InodeCompactV6 *>raw
        format = compact.format
        xattr_count = compact.xattr_count
        out.mode = compact.mode
        out.content = compact.content
        if format & V6_FORMAT_EXTENDED:
            header = sizeof(InodeExtendedV6)
            raw = self.file.at(out.offset, sizeof(InodeExtendedV6))
            if raw == NULL:
                return -EIO
            extended = <const InodeExtendedV6 *>raw
            out.size = extended.size
            out.nlink = extended.nlink
            out.uid = extended.uid
            out.gid = extended.gid
            out.mtime = extended.mtime
            out.mtime_nsec = extended.mtime_nsec
        else:
            out.size = compact.size
            out.nlink = compact.nlink
            out.uid = compact.uid
            out.gid = compact.gid
            out.mtime = 0
            out.mtime_nsec = 0
        out.layout = format >> V6_LAYOUT_SHIFT
        out.xattrs = out.offset + header
        out.xattrs_size = 0
        if xattr_count != 0:
            out.xattrs_size = sizeof(XattrHeaderV6) + <uint64_t>(xattr_count - 1) * 4
        out.tail = out.xattrs + out.xattrs_size
        if self.file.at(out.xattrs, out.xattrs_size) == NULL:
            return -EIO
        kind = out.mode >> KIND_SHIFT
        if kind == KIND_REGULAR:
            if out.layout != V6_LAYOUT_CHUNK:
                return -EIO
        elif kind == KIND_DIRECTORY or kind == KIND_SYMLINK:
            if out.layout != V6_LAYOUT_PLAIN and out.layout != V6_LAYOUT_INLINE:
                return -EIO
            if out.size > self.file.size:       # the data is in this file
                return -EIO
        elif not is_kind(kind):
            return -EIO
        return -EIO if self.file.is_damaged() else 0

    cdef int attributes(self, uint64_t ino, Attributes *out) noexcept nogil:
        cdef Inode inode
        cdef int rc = self.load_inode(ino, &inode)
        if rc != 0:
            return rc
        out.ino = ino
        out.size = inode.size
        out.blocks = inode.size // 512 + (inode.size % 512 != 0)
        out.mtime = inode.mtime
        out.mtime_nsec = inode.mtime_nsec
        out.mode = inode.mode
        out.nlink = inode.nlink
        out.uid = inode.uid if self.explicit_owner else self.daemon_uid
        out.gid = inode.gid if self.explicit_owner else self.daemon_gid
        out.rdev = inode.content if is_device(inode.mode >> KIND_SHIFT) else 0
        out.atime = out.ctime = 0
        out.atime_nsec = out.ctime_nsec = 0
        return 0

    cdef int data_block(self, const Inode *inode, uint64_t block, const uint8_t **data,
                        uint32_t *size) noexcept nogil:
        """Block *block* of an inode that is plain or inline: its bytes, fewer in the last one."""
        cdef uint64_t whole = inode.size >> self.block_bits
        cdef uint64_t offset
        size[0] = 1 << self.block_bits
        if block >= whole:
            size[0] = <uint32_t>(inode.size & ((1 << self.block_bits) - 1))
            if block > whole or size[0] == 0:
                return -EIO
        if block == whole and inode.layout == V6_LAYOUT_INLINE:
            offset = inode.tail
        else:
            offset = (inode.content + block) << self.block_bits
        data[0] = self.file.at(offset, size[0])
        return -EIO if data[0] == NULL else 0

    cdef int load_block(self, const Inode *directory, uint64_t block,
                        DirBlock *out) noexcept nogil:
        """Block *block* of a directory, its entries counted and within it."""
        cdef uint32_t names
        cdef int rc = self.data_block(directory, block, &out.data, &out.size)
        if rc != 0:
            return rc
        if out.size < sizeof(DirentV6):
            return -EIO
        names = (<const DirentV6 *>out.data).name_offset
        if names < sizeof(DirentV6) or names % sizeof(DirentV6) != 0 or names >= out.size:
            return -EIO
        out.count = names // <uint32_t>sizeof(DirentV6)
        return 0

    cdef int search_block(self, const DirBlock *block, const char *name, size_t name_len,
                          uint64_t *nid) noexcept nogil:
        """The nid of *name* in one block; -ENOENT, -EIO."""
        cdef uint32_t low = 0
        cdef uint32_t high = block.count
        cdef uint32_t middle
        cdef const char *found = NULL
        cdef uint32_t found_len = 0
        cdef int order, rc
        while low < high:
            middle = (low + high) // 2
            rc = entry_name(block, middle, &found, &found_len)
            if rc != 0:
                return rc
            order = compare_names(name, name_len, found, found_len)
            if order == 0:
                nid[0] = (<const DirentV6 *>block.data)[middle].nid
                return 0
            if order < 0:
                high = middle
            else:
                low = middle + 1
        return -ENOENT

    cdef int lookup(self, uint64_t parent, const char *name, size_t name_len,
                    uint64_t *ino) noexcept nogil:
        cdef Inode directory
        cdef DirBlock block
        cdef const char *first = NULL
        cdef uint32_t first_len = 0
        cdef uint64_t low = 0       # the name is not in a block from `high` on, nor before `low`
        cdef uint64_t high, middle
        cdef int rc = self.load_inode(parent, &directory)
        if rc != 0:
            return rc
        if directory.mode >> KIND_SHIFT != KIND_DIRECTORY:
            return -ENOTDIR
        if name_len > NAME_MAX:
            return -ENAMETOOLONG
        if name_len == 0:
            return -ENOENT
        high = (directory.size + (1 << self.block_bits) - 1) >> self.block_bits
        if high == 0:
            return -ENOENT
        while high - low > 1:
            middle = low + (high - low) // 2
            rc = self.load_block(&directory, middle, &block)
            if rc == 0:
                rc = entry_name(&block, 0, &first, &first_len)
            if rc != 0:
                return rc
            if compare_names(name, name_len, first, first_len) < 0:
                high = middle
            else:
                low = middle
        rc = self.load_block(&directory, low, &block)
        if rc == 0:
            rc = self.search_block(&block, name, name_len, ino)
        if self.file.is_damaged():
            return -EIO
        if rc == 0 and ino[0] >= self.slots:
            return -EIO
        return rc

    cdef int next_entry(self, uint64_t directory, uint64_t cookie, DirEntry *out) noexcept nogil:
        cdef Inode inode
        cdef DirBlock block
        cdef const DirentV6 *entry
        cdef uint64_t number = cookie >> COOKIE_INDEX_BITS
        cdef uint32_t index = cookie & ((1 << COOKIE_INDEX_BITS) - 1)
        cdef int rc = self.load_inode(directory, &inode)
        if rc != 0:
            return rc
        if inode.mode >> KIND_SHIFT != KIND_DIRECTORY:
            return -ENOTDIR
        if number >= (inode.size + (1 << self.block_bits) - 1) >> self.block_bits:
            return 0
        rc = self.load_block(&inode, number, &block)
        if rc != 0:
            return rc
        if index >= block.count:
            return -EINVAL          # no cookie of ours
        rc = entry_name(&block, index, &out.name, &out.name_len)
        if rc != 0:
            return rc
        entry = &(<const DirentV6 *>block.data)[index]
        out.ino = entry.nid
        out.kind = kind_of_type(entry.file_type)
        if index + 1 < block.count:
            out.next_cookie = cookie + 1
        else:
            out.next_cookie = (number + 1) << COOKIE_INDEX_BITS
        if out.ino >= self.slots or self.file.is_damaged():
            return -EIO
        return 1

    cdef int readlink(self, uint64_t ino, char *out, size_t room, size_t *length) noexcept nogil:
        cdef Inode inode
        cdef const uint8_t *data = NULL
        cdef uint32_t size = 0
        cdef uint64_t block = 0
        cdef size_t done = 0
        cdef int rc = self.load_inode(ino, &inode)
        if rc != 0:
            return rc
        if inode.mode >> KIND_SHIFT != KIND_SYMLINK:
            return -EINVAL
        if inode.size == 0:
            return -EIO
        if inode.size > room:
            return -ERANGE
        while done < inode.size:
            rc = self.data_block(&inode, block, &data, &size)
            if rc != 0:
                return rc
            memcpy(out + done, data, size)
            done += size
            block += 1
        length[0] = done
        return -EIO if self.file.is_damaged() else 0

    cdef int next_xattr(self, uint64_t ino, uint64_t cookie, XattrEntry *out) noexcept nogil:
        """The attribute at *cookie* = offset in the inode's attribute area; 1, 0 the end."""
        cdef Inode inode
        cdef const uint8_t *area
        cdef const XattrEntryV6 *entry
        cdef uint64_t need
        cdef uint64_t size
        cdef int rc = self.load_inode(ino, &inode)
        if rc != 0:
            return rc
        area = self.file.at(inode.xattrs, inode.xattrs_size)
        size = inode.xattrs_size
        if size == 0:
            return 0
        if area == NULL or (<const XattrHeaderV6 *>area).shared_count != 0:
            return -EIO             # shared attributes: an image of ours has none
        if cookie == 0:
            cookie = sizeof(XattrHeaderV6)
        if cookie >= size:
            return 0
        if sizeof(XattrEntryV6) > size - cookie or cookie % 4 != 0:
            return -EIO
        entry = <const XattrEntryV6 *>(area + cookie)
        need = sizeof(XattrEntryV6) + entry.name_len + entry.value_len
        if need > size - cookie:
            return -EIO
        out.prefix = xattr_prefix(entry.prefix, &out.prefix_len)
        if out.prefix == NULL:
            return -EIO
        out.name = <const char *>(area + cookie + sizeof(XattrEntryV6))
        out.name_len = entry.name_len
        if memchr(out.name, 0, out.name_len) != NULL or out.prefix_len + out.name_len > NAME_MAX:
            return -EIO
        out.value = <const uint8_t *>out.name + out.name_len
        out.value_len = entry.value_len
        out.next_cookie = cookie + ((need + 3) & ~<uint64_t>3)
        return -EIO if self.file.is_damaged() else 1

    cdef int load_chunk(self, const Inode *inode, uint64_t index, uint64_t offset,
                        uint64_t length, ChunkSpan *span) noexcept nogil:
        """The span of *length* bytes at *offset* in chunk *index* of a regular file."""
        cdef const ChunkIndexV6 *stored
        cdef uint64_t first = inode.offset + ((inode.tail - inode.offset + 7) & ~<uint64_t>7)
        cdef const BlobLimit *limit
        if index > self.file.size:
            return -EIO
        stored = <const ChunkIndexV6 *>self.file.at(first + index * sizeof(ChunkIndexV6),
                                                    sizeof(ChunkIndexV6))
        if stored == NULL:
            return -EIO
        span.blob_index = (stored.device & 0xff) - 1    # device 0 wraps, and no blob is that far
        if span.blob_index >= self.limits_count:
            return -EIO
        limit = &self.limits[span.blob_index]
        span.chunk_index = stored.chunk_low | <uint32_t>(stored.device >> 8) << 16
        span.uncompressed_offset = <uint64_t>stored.blkaddr << self.block_bits
        if span.chunk_index >= limit.chunk_count \
                or span.uncompressed_offset > limit.uncompressed_end \
                or offset + length > limit.uncompressed_end - span.uncompressed_offset:
            return -EIO
        span.flags = 0
        if self.tarfs:
            span.flags = SPAN_DIRECT
            span.chunk_index = stored.blkaddr   # numbers mean nothing there; the place is unique
        span.offset = <uint32_t>offset
        span.length = <uint32_t>length
        span.uncompressed_size = 0
        span.compressed_offset = 0
        span.compressed_size = 0
        span.chunk_flags = 0
        span.crc32 = 0
        span.digest = NULL
        return 0

    cdef int spans(self, uint64_t ino, uint64_t offset, uint64_t size, ChunkSpan *out,
                   uint32_t room, uint32_t *count) noexcept nogil:
        cdef Inode inode
        cdef uint64_t in_chunk, length
        cdef int rc = self.load_inode(ino, &inode)
        count[0] = 0
        if rc != 0:
            return rc
        if inode.mode >> KIND_SHIFT != KIND_REGULAR:
            return -EISDIR if inode.mode >> KIND_SHIFT == KIND_DIRECTORY else -EINVAL
        if offset >= inode.size:
            return 0
        if size > inode.size - offset:
            size = inode.size - offset
        while size:
            if count[0] == room:
                return -E2BIG
            in_chunk = offset % self.chunk_size
            length = self.chunk_size - in_chunk
            if length > size:
                length = size
            rc = self.load_chunk(&inode, offset // self.chunk_size, in_chunk, length,
                                 &out[count[0]])
            if rc != 0:
                return rc
            count[0] += 1
            offset += length
            size -= length
        return -EIO if self.file.is_damaged() else 0
