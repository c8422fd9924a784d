# What a data blob holds beside its chunks, little endian, packed (docs/formats/blobs.md). Stated
# once, for the reader and the writer.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef extern from *:
    """
    #define CI_HEADER_MAGIC 0xb10bb10bu
    """
    const uint32_t CI_HEADER_MAGIC

cdef enum:
    CI_HEADER_SIZE = 4096
    CI_ENTRY_V1_SIZE = 16
    CI_ENTRY_V2_SIZE = 24
    CI_PLAIN_ALIGNMENT = 4096       # of every chunk in the plain blob
    CI_CHUNKS_MAX = 1 << 24         # of one blob
    # V1, word 0: bits 12..43 of the plain offset in place, plain size - 1 as below
    # V1, word 1: bits 0..39 the stored offset, stored size - 1 as below
    CI_V1_SIZE_LOW_SHIFT = 44       # low 20 bits of size - 1, in both words
    CI_V1_PLAIN_SIZE_HIGH_SHIFT = 8     # word 0: bits 20..23 of size - 1
    CI_V1_STORED_SIZE_HIGH_SHIFT = 40   # word 1: bits 20..23 of size - 1
    # V2, word 0: bits 0..31 plain offset / 4096, then size - 1 and flags
    CI_V2_PLAIN_SIZE_SHIFT = 32     # 24 bits
    CI_V2_FLAGS_SHIFT = 56          # CI_*
    # V2, word 1: bits 0..39 the stored offset, then the stored size
    CI_V2_STORED_SIZE_SHIFT = 40    # 24 bits; not minus one
    # V2, word 2: context index << 32 | offset in its output; or the CRC-32C
    CI_COMPRESSED = 1
    CI_ZRAN = 2
    CI_BATCH = 4
    CI_ENCRYPTED = 8
    CI_HAS_CRC = 16
    # TocEntry.flags, low 4 bits
    TOC_NONE = 1
    TOC_ZSTD = 2
    TOC_LZ4_BLOCK = 4
    TOC_COMPRESSION_MASK = 0xf

cdef extern from *:
    """
    #define CI_V1_PLAIN_OFFSET_MASK 0x00000ffffffff000ull
    #define CI_STORED_OFFSET_MASK 0x000000ffffffffffull
    """
    const uint64_t CI_V1_PLAIN_OFFSET_MASK
    const uint64_t CI_STORED_OFFSET_MASK

cdef packed struct CiEntryV1:
    uint64_t plain                  # +0
    uint64_t stored                 # +8

cdef packed struct CiEntryV2:
    uint64_t plain                  # +0
    uint64_t stored                 # +8
    uint64_t data                   # +16

cdef packed struct CiHeader:
    uint32_t magic                  # +0
    uint32_t features               # +4    BlobFeature; informative
    uint32_t ci_compressor          # +8
    uint32_t entries                # +12
    uint64_t ci_offset              # +16   of the stored CI array in its blob
    uint64_t ci_compressed_size     # +24
    uint64_t ci_uncompressed_size   # +32
    uint64_t contexts_offset        # +40   of the batch or zran table in the plain CI array
    uint64_t contexts_size          # +48
    uint32_t contexts_count         # +56
    uint8_t reserved[4032]          # +60
    uint32_t magic2                 # +4092

cdef packed struct BatchContext:
    uint32_t compressed_size        # +0
    uint32_t uncompressed_size      # +4
    uint8_t reserved[32]            # +8

cdef packed struct ZranContext:
    uint64_t in_offset              # +0    in the gzip file
    uint64_t out_offset             # +8    in the decompressed tar
    uint64_t dict_offset            # +16   in the dictionary area
    uint32_t in_len                 # +24
    uint32_t out_len                # +28
    uint32_t dict_size              # +32
    uint8_t ctx_byte                # +36
    uint8_t ctx_bits                # +37
    uint16_t reserved               # +38

cdef packed struct TocEntry:
    uint32_t flags                  # +0
    uint32_t reserved               # +4
    uint8_t name[16]                # +8    zero padded
    uint8_t digest[32]              # +24   sha256 of the plain content; zeros = not checked
    uint64_t offset                 # +56   in the blob
    uint64_t compressed_size        # +64
    uint64_t uncompressed_size      # +72
    uint8_t reserved2[48]           # +80   anything

# GNU tar header behind each section of a blob (POSIX.1-1988 layout, GNU magic).
cdef packed struct TarHeader:
    uint8_t name[100]               # +0
    uint8_t mode[8]                 # +100
    uint8_t uid[8]                  # +108
    uint8_t gid[8]                  # +116
    uint8_t size[12]                # +124  octal digits, or base 256 with bit 7 of the first byte
    uint8_t mtime[12]               # +136
    uint8_t checksum[8]             # +148
    uint8_t typeflag                # +156
    uint8_t linkname[100]           # +157
    uint8_t magic[8]                # +257
    uint8_t reserved[247]           # +265
