"""What an image says of each of its data blobs: one row of the blob table.

Both versions are told in the same terms; which file a blob id names is decided here
(rafs-format: the blob id when the bootstrap is inlined, data blobs).
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag


class Compressor(IntEnum):
    """Numbers of the v6 blob table and the blob meta header."""

    NONE = 0
    LZ4_BLOCK = 1
    GZIP = 2
    ZSTD = 3


class Digester(IntEnum):
    """Numbers of the v6 blob table."""

    BLAKE3 = 0
    SHA256 = 1


class Cipher(IntEnum):
    """Numbers of the v6 blob table."""

    NONE = 0
    AES_128_XTS = 1
    AES_256_XTS = 2
    AES_256_GCM = 3


class SuperblockFlag(IntFlag):
    """Flags of both versions' superblocks."""

    COMPRESSION_NONE = 0x1
    COMPRESSION_LZ4_BLOCK = 0x2
    DIGEST_BLAKE3 = 0x4
    DIGEST_SHA256 = 0x8
    EXPLICIT_UID_GID = 0x10
    HAS_XATTR = 0x20
    COMPRESSION_GZIP = 0x40
    COMPRESSION_ZSTD = 0x80
    INLINED_CHUNK_DIGEST = 0x100
    TARFS = 0x200
    ENCRYPTION_NONE = 0x1000000
    ENCRYPTION_AES_128_XTS = 0x2000000
    RESERVED = 0xFC000000  # accepted, without meaning


class BlobFeature(IntFlag):
    """Features of a blob (extended blob table of v5, blob table of v6, blob meta header)."""

    ALIGNED = 0x1
    INLINED_FS_META = 0x2
    CHUNK_INFO_V2 = 0x4
    ZRAN = 0x8
    SEPARATE = 0x10
    INLINED_CHUNK_DIGEST = 0x20
    TARFS = 0x40
    BATCH = 0x80
    ENCRYPTED = 0x100
    IS_CHUNKDICT_GENERATED = 0x200
    IS_SEPARATED_WITH_PREFETCH_FILES = 0x400
    EXTERNAL = 0x800
    HAS_TAR_HEADER = 0x10000000
    HAS_TOC = 0x20000000
    CAP_TAR_TOC = 0x40000000


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """One data blob of an image."""

    blob_index: int
    blob_id: str  # of the data, as the backend knows it
    meta_blob_id: str  # of the blob that holds the CI array, ToC and digests: mostly the same
    chunk_size: int  # bytes
    chunk_count: int  # 0 = unknown (v5 without extended blob table)
    compressor: Compressor
    digester: Digester
    features: BlobFeature
    compressed_size: int  # bytes, as stored in the blob table
    data_size: int  # end of the chunk data in the blob file ("D"), bytes
    uncompressed_size: int  # bytes: length of the plain blob and of the cache file
    has_chunk_map: bool = True  # chunk counts are known, so ready bits can be kept
    ci_compressor: Compressor = Compressor.NONE
    ci_offset: int = 0
    ci_compressed_size: int = 0
    ci_uncompressed_size: int = 0
    toc_size: int = 0  # with its tar header; 0 = none or inlined
    toc_digest: bytes = b""  # sha256, or empty
    meta_size: int = 0  # SEPARATE, not inlined: size of the meta blob
    prefetch_size: int = 0  # leading bytes to fetch first (v5 readahead_size)
    cipher: Cipher = Cipher.NONE
    cipher_key: bytes = b""
    cipher_iv: bytes = b""
