# RAFS v6 on disk: an EROFS image with tables of its own, little endian, packed
# (docs/formats/rafs-v6.md; EROFS: fs/erofs/erofs_fs.h of Linux). Stated once, for the reader and
# the writer. Chunk table records are `ChunkRecord` of ondisk_v5.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define V6_MAGIC 0xE0F5E1E2u
    """
    const uint32_t V6_MAGIC

cdef enum:
    V6_SUPERBLOCK_OFFSET = 1024
    V6_EXT_SUPERBLOCK_OFFSET = 1152
    V6_DEVICE_SLOTS_OFFSET = 1408
    V6_DEVICE_SLOT_UNIT = 11                # devt_slotoff, in units of 128 bytes
    V6_BLOCK_BITS = 12
    V6_BLOCK_BITS_TARFS = 9
    V6_TABLE_ALIGNMENT = 4096
    V6_SLOT_BITS = 5                        # nids count slots of 32 bytes
    V6_ROOT_NID = 128                       # as every writer lays it out
    V6_COMPAT_RAFS = 0x40000000             # feature_compat
    V6_INCOMPAT = 0xC                       # feature_incompat: chunked files, device table
    V6_BLOBS_MAX = 254                      # device numbers have 8 bits, 0 is the bootstrap
    V6_MAPPED_ALIGNMENT = 0x80000           # of each blob on a flat disk, bytes
    # InodeExtendedV6.format
    V6_FORMAT_EXTENDED = 1
    V6_LAYOUT_SHIFT = 1
    V6_LAYOUT_PLAIN = 0
    V6_LAYOUT_INLINE = 2
    V6_LAYOUT_CHUNK = 4
    # the union of a regular file
    V6_CHUNK_INDEXES = 0x20                 # chunk indexes of 8 bytes
    V6_CHUNK_BITS_MASK = 0x1f               # log2 of the kernel's unit, less log2 of the block
    # DirentV6.file_type
    V6_TYPE_REGULAR = 1
    V6_TYPE_DIRECTORY = 2
    V6_TYPE_CHAR = 3
    V6_TYPE_BLOCK = 4
    V6_TYPE_FIFO = 5
    V6_TYPE_SOCKET = 6
    V6_TYPE_SYMLINK = 7
    # XattrEntryV6.prefix
    V6_XATTR_USER = 1
    V6_XATTR_ACL_ACCESS = 2
    V6_XATTR_ACL_DEFAULT = 3
    V6_XATTR_TRUSTED = 4
    V6_XATTR_SECURITY = 6

cdef packed struct SuperblockV6:
    uint32_t magic                      # +0
    uint32_t checksum                   # +4    0
    uint32_t feature_compat             # +8
    uint8_t block_bits                  # +12
    uint8_t ext_slots                   # +13   0
    uint16_t root_nid                   # +14
    uint64_t inos                       # +16   names, root and every hard link included
    uint64_t build_time                 # +24
    uint32_t build_time_nsec            # +32
    uint32_t blocks                     # +36   of all blobs
    uint32_t meta_blkaddr               # +40   block of nid 0
    uint32_t xattr_blkaddr              # +44   0
    uint8_t uuid[16]                    # +48
    uint8_t volume_name[16]             # +64
    uint32_t feature_incompat           # +80
    uint16_t compression                # +84   0
    uint16_t extra_devices              # +86   blobs
    uint16_t devt_slotoff               # +88
    uint8_t reserved[38]                # +90

cdef packed struct ExtSuperblockV6:
    uint64_t flags                      # +0    SuperblockFlag
    uint64_t blob_table_offset          # +8
    uint32_t blob_table_size            # +16   bytes
    uint32_t chunk_size                 # +20   bytes
    uint64_t chunk_table_offset         # +24
    uint64_t chunk_table_size           # +32   bytes
    uint64_t prefetch_table_offset      # +40   0 = none
    uint32_t prefetch_table_size        # +48   bytes
    uint32_t padding                    # +52
    uint8_t reserved[200]               # +56

cdef packed struct DeviceSlotV6:
    uint8_t tag[64]                     # +0    blob id, zero padded
    uint32_t blocks                     # +64
    uint32_t mapped_blkaddr             # +68
    uint8_t reserved[56]                # +72

cdef packed struct BlobEntryV6:
    uint8_t blob_id[64]                 # +0    zero padded
    uint32_t blob_index                 # +64
    uint32_t chunk_size                 # +68
    uint32_t chunk_count                # +72
    uint32_t compressor                 # +76   Compressor
    uint32_t digester                   # +80   Digester
    uint32_t features                   # +84   BlobFeature
    uint64_t compressed_size            # +88
    uint64_t uncompressed_size          # +96
    uint32_t toc_size                   # +104  with its tar header
    uint32_t ci_compressor              # +108
    uint64_t ci_offset                  # +112
    uint64_t ci_compressed_size         # +120
    uint64_t ci_uncompressed_size       # +128
    uint8_t toc_digest[32]              # +136  sha256
    uint8_t meta_digest[32]             # +168  sha256 = id of the meta blob; or the cipher key
    uint64_t meta_size                  # +200  of the meta blob; or the IV's first 8 bytes
    uint8_t cipher_iv[8]                # +208  the IV's last 8 bytes
    uint32_t cipher                     # +216  Cipher
    uint8_t reserved[36]                # +220

cdef packed struct InodeCompactV6:
    uint16_t format                     # +0
    uint16_t xattr_count                # +2    0, or (bytes of the area - 12) / 4 + 1
    uint16_t mode                       # +4
    uint16_t nlink                      # +6
    uint32_t size                       # +8
    uint32_t reserved                   # +12
    uint32_t content                    # +16   block address, chunk format or rdev
    uint32_t ino                        # +20
    uint16_t uid                        # +24
    uint16_t gid                        # +26
    uint32_t reserved2                  # +28

cdef packed struct InodeExtendedV6:
    uint16_t format                     # +0
    uint16_t xattr_count                # +2
    uint16_t mode                       # +4
    uint16_t reserved                   # +6
    uint64_t size                       # +8
    uint32_t content                    # +16   block address, chunk format or rdev
    uint32_t ino                        # +20   number in the order of the build
    uint32_t uid                        # +24
    uint32_t gid                        # +28
    int64_t mtime                       # +32   seconds
    uint32_t mtime_nsec                 # +40
    uint32_t nlink                      # +44
    uint8_t reserved2[16]               # +48

cdef packed struct DirentV6:
    uint64_t nid                        # +0
    uint16_t name_offset                # +8    from the start of this block
    uint8_t file_type                   # +10   V6_TYPE_*
    uint8_t reserved                    # +11

cdef packed struct XattrHeaderV6:
    uint32_t name_filter                # +0    0
    uint8_t shared_count                # +4    0
    uint8_t reserved[7]                 # +5

# Followed by the name without its prefix, the value, and zeros to a multiple of 4.
cdef packed struct XattrEntryV6:
    uint8_t name_len                    # +0
    uint8_t prefix                      # +1    V6_XATTR_*
    uint16_t value_len                  # +2

cdef packed struct ChunkIndexV6:
    uint16_t chunk_low                  # +0    low 16 bits of the chunk's number
    uint16_t device                     # +2    low byte: blob index + 1; high: bits 16..23 of it
    uint32_t blkaddr                    # +4    of the chunk in the plain blob
