# RAFS v5 on disk: little endian, packed, every record on a multiple of 8 bytes
# (docs/formats/rafs-v5.md). Stated once, for the reader and the writer.
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    V5_MAGIC = 0x52414653
    V5_VERSION = 0x500
    V5_SUPERBLOCK_SIZE = 8192
    V5_ALIGNMENT = 8                # tables and inode records; inode offsets are stored >> 3
    V5_ROOT_INO = 1
    V5_NAME_MAX = 256               # bytes; what a reader puts up with, a writer stops at 255
    V5_DIR_ALIGNMENT = 4096         # sizes of directories are multiples of it
    # InodeV5.flags
    V5_INODE_SYMLINK = 1
    V5_INODE_HARDLINK = 2
    V5_INODE_XATTR = 4
    V5_INODE_HAS_HOLES = 8

cdef packed struct SuperblockV5:
    uint32_t magic                          # +0
    uint32_t version                        # +4
    uint32_t superblock_size                # +8
    uint32_t chunk_size                     # +12   bytes
    uint64_t flags                          # +16   SuperblockFlag
    uint64_t inodes_count                   # +24   a hard link counts once
    uint64_t inode_table_offset             # +32
    uint64_t prefetch_table_offset          # +40   also set when the table is empty
    uint64_t blob_table_offset              # +48
    uint32_t inode_table_entries            # +56   names: every hard link counts
    uint32_t prefetch_table_entries         # +60
    uint32_t blob_table_size                # +64   bytes, padding included
    uint32_t ext_blob_table_entries         # +68
    uint64_t ext_blob_table_offset          # +72
    uint8_t reserved[8112]                  # +80

# Followed by the name, the symlink target, the xattr block and the chunk records, each padded with
# zeros to a multiple of 8.
cdef packed struct InodeV5:
    uint8_t digest[32]          # +0
    uint64_t parent             # +32   ino; 0 for the root
    uint64_t ino                # +40
    uint32_t uid                # +48
    uint32_t gid                # +52
    uint32_t projid             # +56
    uint32_t mode               # +60   with type bits
    uint64_t size               # +64   bytes
    uint64_t blocks             # +72   512 bytes each
    uint64_t flags              # +80   V5_INODE_*
    uint32_t nlink              # +88
    uint32_t child_index        # +92   directory: index of the first child
    uint32_t child_count        # +96   directory: children; regular file: chunks
    uint16_t name_size          # +100
    uint16_t symlink_size       # +102
    uint32_t rdev               # +104  Linux 32-bit encoding
    uint32_t mtime_nsec         # +108
    int64_t mtime               # +112  seconds
    uint8_t reserved[8]         # +120

# One place of a chunk; the chunk table of v6 has the same records.
cdef packed struct ChunkRecord:
    uint8_t digest[32]              # +0    of the plain bytes
    uint32_t blob_index             # +32
    uint32_t flags                  # +36   CHUNK_*, see bootstrap.pxd
    uint32_t compressed_size        # +40
    uint32_t uncompressed_size      # +44
    uint64_t compressed_offset      # +48   in the blob
    uint64_t uncompressed_offset    # +56   in the plain blob
    uint64_t file_offset            # +64
    uint32_t index                  # +72   number of the chunk in its blob
    uint32_t crc32                  # +76   CRC-32C of the plain bytes, with CHUNK_HAS_CRC

# Blob table: records of this, the blob id and one zero byte between two records.
cdef packed struct BlobRecordV5:
    uint32_t readahead_offset       # +0
    uint32_t readahead_size         # +4    leading bytes of the blob to fetch first

cdef packed struct ExtBlobV5:
    uint32_t chunk_count            # +0
    uint32_t features               # +4    BlobFeature
    uint64_t uncompressed_size      # +8
    uint64_t compressed_size        # +16
    uint8_t reserved[40]            # +24
