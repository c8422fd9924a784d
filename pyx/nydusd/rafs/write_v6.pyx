"""A v6 bootstrap from a numbered tree: superblocks and tables, the metadata area, the chunk table.

Tables: ondisk_v6; the area between them: `layout_v6` and `write_inodes_v6`. The bytes are those of
the reference's builder, revision by revision. Not for several threads at a time.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from nydusd.rafs.layout_v6 cimport place_tree
from nydusd.rafs.ondisk_v6 cimport (
    V6_BLOBS_MAX, V6_BLOCK_BITS, V6_COMPAT_RAFS, V6_DEVICE_SLOT_UNIT, V6_DEVICE_SLOTS_OFFSET,
    V6_EXT_SUPERBLOCK_OFFSET, V6_INCOMPAT, V6_MAGIC, V6_MAPPED_ALIGNMENT, V6_ROOT_NID, V6_SLOT_BITS,
    V6_SUPERBLOCK_OFFSET, BlobEntryV6, DeviceSlotV6, ExtSuperblockV6, SuperblockV6,
)
from nydusd.rafs.write_chunks cimport ChunkTable
from nydusd.rafs.write_inodes_v6 cimport ImageBytes
from nydusd.rafs.write_tree cimport TreeNode, align

from nydusd.base.errors import BuildError
from nydusd.rafs.blobs import BlobFeature, SuperblockFlag

cdef enum:
    BLOCK = 4096


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


cdef int put_device_slots(ImageBytes image, object settings) except -1:
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


cdef int put_superblocks(ImageBytes image, object settings, uint32_t name_count, bint has_xattr,
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
    cdef ImageBytes image
    cdef ExtSuperblockV6 ext
    cdef bytes zeros = bytes(sizeof(ext))
    cdef bytes table
    cdef bytearray chunk_table
    cdef TreeNode node
    cdef uint64_t shift = 0, at, area_size, metadata_end
    cdef uint32_t nid, root_number
    root_number = settings.revision.root_number
    if settings.is_layered:
        root_number = settings.revision.layered_root_number
    memcpy(&ext, <const char *>zeros, sizeof(ext))
    check_blobs(settings.blobs)
    area_size = place_tree(root)
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
    metadata_end = align(shift + area_size, BLOCK)
    ext.chunk_table_offset = metadata_end
    ext.chunk_table_size = len(chunk_table)
    image = ImageBytes(align(metadata_end + len(chunk_table), BLOCK), shift, chunks,
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
