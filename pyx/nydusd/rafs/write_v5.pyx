"""A v5 bootstrap from a numbered tree: tables first, then one record an inode, in index order.

Structs: ondisk_v5; rules: rafs-format, RAFS v5. The bytes are those of the reference's builder,
revision by revision. Not for several threads at a time.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy
from posix.stat cimport S_IFLNK, S_IFMT, S_IFREG

from nydusd.rafs.ondisk_v5 cimport (
    V5_ALIGNMENT,
    V5_DIR_ALIGNMENT,
    V5_INODE_SYMLINK,
    V5_INODE_XATTR,
    V5_MAGIC,
    V5_SUPERBLOCK_SIZE,
    V5_VERSION,
    BlobRecordV5,
    ChunkRecord,
    ExtBlobV5,
    InodeV5,
    SuperblockV5,
)
from nydusd.rafs.write_chunks cimport ChunkTable
from nydusd.rafs.write_tree cimport TreeNode, align

from nydusd.base.errors import BuildError

cdef enum:
    DIRECTORY_ENTRY = 8     # bytes a name counts in a directory's size, beside its own
    BLOCK = 512             # of `blocks`
    OFFSET_SHIFT = 3        # inode offsets are stored in units of 8 bytes
    DIGEST_SIZE = 32

cdef uint64_t OFFSET_END = 1 << 32      # inode offsets have 29 bits, in units of 8


cdef uint64_t xattr_bytes(TreeNode node) except? 0xffffffffffffffff:
    """Bytes of the attribute pairs, without padding."""
    cdef uint64_t total = 0
    cdef bytes name, value
    for name, value in node.xattrs:
        total += sizeof(uint32_t) + len(name) + 1 + len(value)
    return total


cdef uint64_t directory_size(TreeNode node) except? 0:
    """The size a directory shows: made up from its names, so that builds can be repeated."""
    cdef uint64_t size = 0
    cdef TreeNode child
    for child in node.children:
        size += len(child.name) + DIRECTORY_ENTRY
    return align(size, V5_DIR_ALIGNMENT) if size else V5_DIR_ALIGNMENT


cdef uint64_t record_size(TreeNode node) except? 0:
    """Bytes of the inode record with all that belongs to it."""
    cdef uint64_t size = sizeof(InodeV5) + align(len(node.name), V5_ALIGNMENT)
    if node.mode & S_IFMT == S_IFLNK:
        size += align(len(node.target), V5_ALIGNMENT)
    if node.xattrs:
        size += sizeof(uint64_t) + align(xattr_bytes(node), V5_ALIGNMENT)
    return size + sizeof(ChunkRecord) * <uint64_t>node.chunk_count


cdef uint8_t *put_bytes(uint8_t *at, bytes data) noexcept:
    """Copy *data*; the end of it, padded."""
    memcpy(at, <const char *>data, len(data))
    return at + align(len(data), V5_ALIGNMENT)


cdef uint8_t *put_xattrs(uint8_t *at, TreeNode node) except NULL:
    cdef uint64_t total = xattr_bytes(node)
    cdef uint8_t *end = at + sizeof(total) + align(total, V5_ALIGNMENT)
    cdef bytes name, value
    cdef uint32_t pair
    memcpy(at, &total, sizeof(total))
    at += sizeof(total)
    for name, value in node.xattrs:
        pair = <uint32_t>(len(name) + 1 + len(value))
        memcpy(at, &pair, sizeof(pair))
        at += sizeof(pair)
        memcpy(at, <const char *>name, len(name) + 1)
        at += len(name) + 1
        memcpy(at, <const char *>value, len(value))
        at += len(value)
    return end


cdef int put_chunks(uint8_t *at, TreeNode node, ChunkTable chunks, uint32_t chunk_size) except -1:
    cdef ChunkRecord record
    cdef uint32_t k
    if node.mode & S_IFMT != S_IFREG:
        return 0
    chunks.check_references(node, chunk_size)
    for k in range(node.chunk_count):
        record = chunks.records[chunks.references[node.first_reference + k]]
        record.file_offset = <uint64_t>k * chunk_size
        memcpy(at + k * sizeof(record), &record, sizeof(record))
    return 0


cdef int put_node(uint8_t *at, TreeNode node, ChunkTable chunks, uint32_t chunk_size) except -1:
    cdef InodeV5 inode
    cdef bytes zeros = bytes(sizeof(inode))
    cdef uint32_t kind = node.mode & S_IFMT
    cdef uint64_t pairs = 0
    memcpy(&inode, <const char *>zeros, sizeof(inode))
    if len(node.digest) != DIGEST_SIZE:
        raise AssertionError(f"no digest of {node!r}")
    memcpy(inode.digest, <const char *>node.digest, DIGEST_SIZE)
    inode.parent = node.parent
    inode.ino = node.ino
    inode.uid = node.uid
    inode.gid = node.gid
    inode.mode = node.mode
    inode.size = node.size
    inode.nlink = node.nlink
    inode.name_size = <uint16_t>len(node.name)
    inode.rdev = node.rdev
    inode.mtime = node.mtime
    inode.mtime_nsec = node.mtime_nsec
    if node.children is not None:
        inode.size = directory_size(node)
        inode.child_index = node.child_index
        inode.child_count = <uint32_t>len(node.children)
    elif kind == S_IFREG:
        inode.child_count = node.chunk_count
    elif kind == S_IFLNK:
        inode.flags |= V5_INODE_SYMLINK
        inode.symlink_size = <uint16_t>len(node.target)
    if node.xattrs:
        inode.flags |= V5_INODE_XATTR
        pairs = align(xattr_bytes(node), V5_ALIGNMENT)
    inode.blocks = (inode.size + pairs + BLOCK - 1) // BLOCK
    memcpy(at, &inode, sizeof(inode))
    at = put_bytes(at + sizeof(inode), node.name)
    if kind == S_IFLNK:
        at = put_bytes(at, node.target)
    if node.xattrs:
        at = put_xattrs(at, node)
    return put_chunks(at, node, chunks, chunk_size)


cdef bytes padded(bytes data):
    return data + bytes(align(len(data), V5_ALIGNMENT) - len(data))


cdef bytes blob_table(list blobs):
    cdef BlobRecordV5 record
    cdef list rows = []
    record.readahead_offset = 0
    for blob in blobs:
        record.readahead_size = blob.prefetch_size
        rows.append((<const char *>&record)[:sizeof(record)] + blob.blob_id.encode())
    return padded(b"\0".join(rows))


cdef bytes extended_blob_table(list blobs):
    cdef ExtBlobV5 row
    cdef bytes zeros = bytes(sizeof(row))
    cdef list rows = []
    memcpy(&row, <const char *>zeros, sizeof(row))
    for blob in blobs:
        row.chunk_count = blob.chunk_count
        row.features = int(blob.features)
        row.uncompressed_size = blob.uncompressed_size
        row.compressed_size = blob.compressed_size
        rows.append((<const char *>&row)[:sizeof(row)])
    return b"".join(rows)


cdef bytes ino_table(list prefetch):
    cdef list inos = []
    cdef TreeNode node
    for node in prefetch:
        inos.append(int(node.ino).to_bytes(4, "little"))
    return padded(b"".join(inos))


def write_v5(list nodes, ChunkTable chunks, object settings, list prefetch):
    """The bytes of a v5 bootstrap: *nodes* are a numbered tree with its digests, *settings* an
    `ImageSettings`, *prefetch* the nodes of the prefetch table.

    `BuildError` when it would be larger than v5 can address.
    """
    cdef SuperblockV5 sb
    cdef bytes zeros = bytes(sizeof(sb))
    cdef bytes prefetch_table = ino_table(prefetch)
    cdef bytes blobs = blob_table(settings.blobs)
    cdef bytes extended = extended_blob_table(settings.blobs)
    cdef bytearray data
    cdef uint8_t *base
    cdef uint64_t position, distinct = 0
    cdef uint32_t units
    cdef size_t i
    cdef TreeNode node
    cdef list offsets = []
    cdef bint has_xattr = False
    memcpy(&sb, <const char *>zeros, sizeof(sb))
    sb.magic = V5_MAGIC
    sb.version = V5_VERSION
    sb.superblock_size = V5_SUPERBLOCK_SIZE
    sb.chunk_size = settings.chunk_size
    sb.inode_table_offset = V5_SUPERBLOCK_SIZE
    sb.inode_table_entries = <uint32_t>len(nodes)
    sb.prefetch_table_offset = V5_SUPERBLOCK_SIZE + align(4 * len(nodes), V5_ALIGNMENT)
    sb.prefetch_table_entries = <uint32_t>len(prefetch)
    sb.blob_table_offset = sb.prefetch_table_offset + len(prefetch_table)
    sb.blob_table_size = <uint32_t>len(blobs)
    sb.ext_blob_table_offset = sb.blob_table_offset + len(blobs)
    sb.ext_blob_table_entries = <uint32_t>len(settings.blobs)
    position = sb.ext_blob_table_offset + len(extended)
    for node in nodes:
        offsets.append(position)
        position += record_size(node)
        distinct += node.first_name is None
        has_xattr = has_xattr or bool(node.xattrs)
    if position > OFFSET_END:
        raise BuildError(f"the bootstrap would have {position} bytes: v5 ends at 4 GiB, use v6")
    sb.inodes_count = distinct if settings.revision.root_counts else distinct - 1
    sb.flags = settings.flags(has_xattr)
    data = bytearray(position)
    base = <uint8_t *>data
    memcpy(base, &sb, sizeof(sb))
    put_bytes(base + sb.prefetch_table_offset, prefetch_table)
    put_bytes(base + sb.blob_table_offset, blobs)
    put_bytes(base + sb.ext_blob_table_offset, extended)
    for i in range(<size_t>len(nodes)):
        position = offsets[i]
        units = <uint32_t>(position >> OFFSET_SHIFT)
        memcpy(base + V5_SUPERBLOCK_SIZE + sizeof(units) * i, &units, sizeof(units))
        put_node(base + position, nodes[i], chunks, settings.chunk_size)
    return data
