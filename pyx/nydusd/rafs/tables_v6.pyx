"""Tables of a v6 bootstrap: superblocks, device slots, blob table, prefetch table; checked.

All that opening an image reads. `BootstrapError` names the field that is not as it must be; for
the checker all of them are told. Rules: docs/formats/rafs-v6.md.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.base.mapping cimport Mapping
from nydusd.rafs.ondisk_blob cimport CI_CHUNKS_MAX, CI_ENTRY_V1_SIZE, CI_ENTRY_V2_SIZE
from nydusd.rafs.ondisk_v5 cimport ChunkRecord
from nydusd.rafs.ondisk_v6 cimport (
    V6_BLOBS_MAX, V6_BLOCK_BITS, V6_BLOCK_BITS_TARFS, V6_COMPAT_RAFS, V6_DEVICE_SLOT_UNIT,
    V6_DEVICE_SLOTS_OFFSET, V6_EXT_SUPERBLOCK_OFFSET, V6_INCOMPAT, V6_MAGIC,
    V6_SUPERBLOCK_OFFSET, V6_TABLE_ALIGNMENT, BlobEntryV6, DeviceSlotV6, ExtSuperblockV6,
    SuperblockV6,
)

from nydusd.rafs.areas import Area, Demands, check_areas
from nydusd.rafs.blobs import (
    BlobFeature,
    BlobInfo,
    Cipher,
    Compressor,
    Digester,
    SuperblockFlag,
    algorithms_of_flags,
    check_chunk_size,
    check_features_v6,
    data_size_v6,
    parse_blob_id,
)
from nydusd.rafs.records import Tables

cdef enum:
    FILE_SIZE_MIN = 4096
    COMPRESSED_SIZE_BITS = 40       # of a blob: 1 TiB
    UNCOMPRESSED_SIZE_BITS = 44     # of a blob: 16 TiB
    PREFETCH_MAX = 1 << 20          # more hints than this are not worth their memory


cdef bytes copy_of(const uint8_t *data, size_t size):
    """*size* bytes at *data*."""
    return (<const char *>data)[:size]


cdef object number(object kind, uint32_t value, str what, object demands):
    """*value* as a member of the enumeration *kind*; None after a fault."""
    try:
        return kind(value)
    except ValueError:
        demands.check(False, f"{what} has the unknown number {value}")


cdef const SuperblockV6 *read_superblock(Mapping file, object demands) except NULL:
    """The EROFS superblock, checked."""
    cdef const SuperblockV6 *found = <const SuperblockV6 *>file.at(
        V6_SUPERBLOCK_OFFSET, sizeof(SuperblockV6))
    demands.must(found != NULL and file.size >= FILE_SIZE_MIN,
                 f"its {file.size} bytes are fewer than {FILE_SIZE_MIN}")
    demands.must(found.magic == V6_MAGIC, f"magic is {found.magic:#x}")
    demands.check(found.checksum == 0, "superblock has a checksum")
    demands.must(found.feature_compat & V6_COMPAT_RAFS, "the RAFS v6 bit is not set: plain EROFS")
    demands.must(found.block_bits == V6_BLOCK_BITS or found.block_bits == V6_BLOCK_BITS_TARFS,
                 f"block size is 1 << {found.block_bits}")
    demands.check(file.size % (1 << found.block_bits) == 0,
                  f"its size {file.size} is no whole block")
    demands.check(found.ext_slots == 0, "superblock has extra slots")
    demands.check(found.inos != 0, "it has no inodes")
    demands.check(found.xattr_blkaddr == 0, "it has shared xattrs")
    demands.check(found.feature_incompat == V6_INCOMPAT,
                  f"incompatible features are {found.feature_incompat:#x}")
    demands.check(found.compression == 0, "it has compressed EROFS data")
    demands.check(found.devt_slotoff == V6_DEVICE_SLOT_UNIT,
                  f"device slots start at {found.devt_slotoff}")
    demands.check(found.extra_devices <= V6_BLOBS_MAX, f"it has {found.extra_devices} blobs")
    demands.check(found.extra_devices > 0 or found.blocks == 0 or found.blocks == FILE_SIZE_MIN,
                  f"{found.blocks} blocks of data without a blob")
    return found


cdef const ExtSuperblockV6 *read_ext_superblock(
    Mapping file, const SuperblockV6 *superblock, object demands
) except NULL:
    """The extended superblock, checked against the first one."""
    cdef const ExtSuperblockV6 *found = <const ExtSuperblockV6 *>file.at(
        V6_EXT_SUPERBLOCK_OFFSET, sizeof(ExtSuperblockV6))
    demands.must(found != NULL, "the extended superblock is cut")
    demands.attempt(algorithms_of_flags, 6, found.flags)
    demands.check(bool(found.flags & SuperblockFlag.TARFS)
                  == (superblock.block_bits == V6_BLOCK_BITS_TARFS),
                  "block size and tarfs flag disagree")
    demands.attempt(check_chunk_size, 6, found.chunk_size)
    demands.check(found.blob_table_size % sizeof(BlobEntryV6) == 0
                  and found.blob_table_size // sizeof(BlobEntryV6) == superblock.extra_devices,
                  f"blob table has {found.blob_table_size} bytes for "
                  f"{superblock.extra_devices} blobs")
    demands.check(found.blob_table_offset % V6_TABLE_ALIGNMENT == 0
                  and found.blob_table_offset >= V6_TABLE_ALIGNMENT,
                  f"blob table is at {found.blob_table_offset}")
    demands.check(found.chunk_table_size % sizeof(ChunkRecord) == 0
                  and (found.chunk_table_size == 0
                       or found.chunk_table_offset % V6_TABLE_ALIGNMENT == 0),
                  f"chunk table has {found.chunk_table_size} bytes at {found.chunk_table_offset}")
    demands.check(found.prefetch_table_size % sizeof(uint32_t) == 0,
                  f"prefetch table has {found.prefetch_table_size} bytes")
    return found


cdef object read_blob(const BlobEntryV6 *entry, uint32_t index, uint32_t chunk_size,
                      object demands):
    """The `BlobInfo` of one entry, before a file name gives it its real id; None after a fault."""
    where = f"blob {index}"
    raw_id = copy_of(entry.blob_id, sizeof(entry.blob_id)).rstrip(b"\0")
    blob_id = demands.attempt(parse_blob_id, 6, index, raw_id)
    demands.check(entry.blob_index == index, f"{where} has index {entry.blob_index}")
    demands.check(entry.chunk_size == chunk_size,
                  f"{where} has chunks of {entry.chunk_size} bytes, the image of {chunk_size}")
    demands.check(entry.chunk_count <= CI_CHUNKS_MAX, f"{where} has {entry.chunk_count} chunks")
    features = demands.attempt(check_features_v6, index, entry.features)
    demands.check(entry.compressed_size >> COMPRESSED_SIZE_BITS == 0
                  and entry.uncompressed_size >> UNCOMPRESSED_SIZE_BITS == 0,
                  f"{where} has {entry.compressed_size} bytes for {entry.uncompressed_size}")
    if features is not None:
        check_ci_sizes(entry, index, features, demands)
    compressor = number(Compressor, entry.compressor, f"compressor of {where}", demands)
    ci_compressor = number(Compressor, entry.ci_compressor, f"CI compressor of {where}", demands)
    digester = number(Digester, entry.digester, f"digester of {where}", demands)
    cipher = number(Cipher, entry.cipher, f"cipher of {where}", demands)
    if cipher is not None:
        demands.check(cipher in (Cipher.NONE, Cipher.AES_128_XTS),
                      f"cipher of {where} is {cipher.name}")
    if demands.faults:
        return None
    meta_digest = copy_of(entry.meta_digest, 32)
    toc_digest = copy_of(entry.toc_digest, 32)
    encrypted = bool(features & BlobFeature.ENCRYPTED)
    apart = BlobFeature.SEPARATE in features and BlobFeature.INLINED_FS_META not in features
    iv = int(entry.meta_size).to_bytes(8, "little") + copy_of(entry.cipher_iv, 8)
    return BlobInfo(
        version=6,
        blob_index=index,
        blob_id=blob_id,
        meta_blob_id=meta_digest.hex() if apart and not encrypted else blob_id,
        chunk_size=chunk_size,
        chunk_count=entry.chunk_count,
        compressor=compressor,
        digester=digester,
        features=features,
        compressed_size=entry.compressed_size,
        data_size=data_size_v6(features, entry.compressed_size, entry.ci_offset,
                               entry.ci_compressed_size),
        uncompressed_size=entry.uncompressed_size,
        ci_compressor=ci_compressor,
        ci_offset=entry.ci_offset,
        ci_compressed_size=entry.ci_compressed_size,
        ci_uncompressed_size=entry.ci_uncompressed_size,
        toc_size=entry.toc_size,
        toc_digest=toc_digest if any(toc_digest) else b"",
        meta_size=entry.meta_size if apart and not encrypted else 0,
        cipher=cipher,
        cipher_key=meta_digest if encrypted else b"",
        cipher_iv=iv if encrypted else b"",
    )


cdef int check_ci_sizes(const BlobEntryV6 *entry, uint32_t index, object features,
                        object demands) except -1:
    """The CI array has an entry for each chunk; more only where tables follow it."""
    cdef uint64_t size = entry.ci_uncompressed_size
    where = f"CI array of blob {index}"
    demands.check(entry.ci_compressed_size <= size,
                  f"{where} grows from {size} bytes when compressed")
    demands.check(entry.ci_offset >> COMPRESSED_SIZE_BITS == 0
                  and size >> COMPRESSED_SIZE_BITS == 0,
                  f"{where} has {size} bytes at {entry.ci_offset}")
    if entry.ci_compressed_size == 0 or features & BlobFeature.IS_CHUNKDICT_GENERATED:
        return 0
    if not features & BlobFeature.CHUNK_INFO_V2:
        demands.check(size == <uint64_t>entry.chunk_count * CI_ENTRY_V1_SIZE,
                      f"{where} has {size} bytes for {entry.chunk_count} chunks")
    elif features & (BlobFeature.ZRAN | BlobFeature.BATCH | BlobFeature.ENCRYPTED):
        demands.check(size >= <uint64_t>entry.chunk_count * CI_ENTRY_V2_SIZE,
                      f"{where} has {size} bytes for {entry.chunk_count} chunks")
    else:
        demands.check(size == <uint64_t>entry.chunk_count * CI_ENTRY_V2_SIZE,
                      f"{where} has {size} bytes for {entry.chunk_count} chunks")
    return 0


cdef int check_device_slots(Mapping file, uint32_t count, object demands) except -1:
    """Slots are in the file, name each blob once, and none is empty."""
    cdef const DeviceSlotV6 *slots = <const DeviceSlotV6 *>file.at(
        V6_DEVICE_SLOTS_OFFSET, count * sizeof(DeviceSlotV6))
    cdef uint32_t i
    if not demands.check(slots != NULL, "device slots are cut"):
        return 0
    tags = set()
    for i in range(count):
        tag = copy_of(slots[i].tag, sizeof(slots[i].tag))
        demands.check(tag not in tags, f"device slot {i} repeats an earlier one")
        demands.check(slots[i].blocks != 0, f"device slot {i} has no blocks")
        tags.add(tag)
    return 0


cdef list read_prefetch(Mapping file, uint64_t offset, uint64_t size):
    """Nids of the prefetch table in its order; [] when there is none."""
    cdef uint64_t count = min(size // sizeof(uint32_t), <uint64_t>PREFETCH_MAX)
    cdef uint64_t i
    cdef uint32_t nid = 0
    found = []
    for i in range(count):
        if file.load_u32(offset + i * sizeof(uint32_t), &nid) != 0:
            break
        if nid != 0:                # nydus-image 2.2 leaves such rows for patterns without a file
            found.append(nid)
    return found


cdef object read_all(Mapping file, object demands):
    """The tables, which are of no use when the *demands* have kept a fault."""
    cdef const SuperblockV6 *superblock = read_superblock(file, demands)
    cdef const ExtSuperblockV6 *extended = read_ext_superblock(file, superblock, demands)
    cdef uint32_t count = superblock.extra_devices
    cdef const BlobEntryV6 *entries
    cdef uint32_t i
    cdef uint64_t prefetch_size = extended.prefetch_table_size
    if extended.prefetch_table_offset == 0:     # old images without data: a size, but no table
        prefetch_size = 0
    slots_end = V6_DEVICE_SLOTS_OFFSET + count * sizeof(DeviceSlotV6)
    check_areas(demands, [
        Area("blob table", extended.blob_table_offset, extended.blob_table_size),
        Area("prefetch table", extended.prefetch_table_offset, prefetch_size),
        Area("chunk table", extended.chunk_table_offset, extended.chunk_table_size),
    ], slots_end, file.size)
    check_device_slots(file, count, demands)
    # Less than all only when that is a fault already, or its place is.
    count = min(count, <uint32_t>(extended.blob_table_size // sizeof(BlobEntryV6)))
    entries = <const BlobEntryV6 *>file.at(extended.blob_table_offset, count * sizeof(BlobEntryV6))
    if entries == NULL:
        count = 0
    blobs = [read_blob(&entries[i], i, extended.chunk_size, demands) for i in range(count)]
    if demands.faults:
        return None
    return Tables(
        blobs=blobs,
        prefetch_inos=read_prefetch(file, extended.prefetch_table_offset, prefetch_size),
    )


def read_tables(Mapping file):
    """Blobs and prefetch table of the v6 bootstrap in *file*, everything checked."""
    return read_all(file, Demands("v6"))


def table_faults(Mapping file):
    """A line for each fault of the tables of the v6 bootstrap in *file*."""
    return Demands.all_faults("v6", lambda demands: read_all(file, demands))
