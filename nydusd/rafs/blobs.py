"""What an image says of each of its data blobs: one row of the blob table.

Both versions are told in the same terms; which file a blob id names is decided here
(rafs-format: the blob id when the bootstrap is inlined, data blobs).
"""

from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import NoReturn

from nydusd.base.errors import BootstrapError, UnsupportedError
from nydusd.base.record import NamedTuple

CHUNK_SIZE_MIN = 0x1000
CHUNK_SIZE_MAX = 0x1000000
BLOB_ID_MAX = 255  # bytes; a blob is a file of this name
TAR_HEADER_SIZE = 512


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


class BlobInfo(NamedTuple):
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
    cipher_key: bytes = b""  # not shown
    cipher_iv: bytes = b""  # not shown
    version: int = 6  # of the bootstrap

    def __repr__(self) -> str:
        """The fields but those of the cipher."""
        shown = (
            f"{name}={value!r}"
            for name, value in zip(self._fields, self, strict=True)
            if not name.startswith("cipher_")
        )
        return f"BlobInfo({', '.join(shown)})"


class Algorithms(NamedTuple):
    """What the superblock says of a whole image."""

    compressor: Compressor
    digester: Digester


# In the order in which a reader of v5 looks when more than one is set.
_COMPRESSOR_FLAGS = (
    (SuperblockFlag.COMPRESSION_NONE, Compressor.NONE),
    (SuperblockFlag.COMPRESSION_LZ4_BLOCK, Compressor.LZ4_BLOCK),
    (SuperblockFlag.COMPRESSION_GZIP, Compressor.GZIP),
    (SuperblockFlag.COMPRESSION_ZSTD, Compressor.ZSTD),
)
_DIGESTER_FLAGS = (
    (SuperblockFlag.DIGEST_BLAKE3, Digester.BLAKE3),
    (SuperblockFlag.DIGEST_SHA256, Digester.SHA256),
)
_KNOWN_FLAGS = SuperblockFlag.RESERVED.value
for _flag in SuperblockFlag:
    _KNOWN_FLAGS |= _flag.value
_INCOMPATIBLE_FEATURES = 0xF000  # bits that a reader which does not know them must not pass over
_INTERNAL_FEATURE = 0x80000000  # a mark that the reference keeps in memory only
_KNOWN_FEATURES = 0
for _feature in BlobFeature:
    _KNOWN_FEATURES |= _feature.value


def _refuse(version: int, what: str) -> NoReturn:
    raise BootstrapError(
        f"v{version} bootstrap: {what}: the file is corrupt or made by a newer builder, "
        "get or build it again"
    )


def algorithms_of_flags(version: int, flags: int) -> Algorithms:
    """Compressor and digester that superblock *flags* name; `BootstrapError` for unknown bits.

    v6 demands exactly one of each; v5 takes the first, lz4_block and blake3 when there is none.
    """
    if flags & ~_KNOWN_FLAGS:
        _refuse(version, f"superblock flags {flags:#x} have unknown bits")
    compressors = [compressor for flag, compressor in _COMPRESSOR_FLAGS if flags & flag]
    digesters = [digester for flag, digester in _DIGESTER_FLAGS if flags & flag]
    if version == 6 and (len(compressors) != 1 or len(digesters) != 1):
        _refuse(version, f"superblock flags {flags:#x} do not name one compressor and digester")
    return Algorithms(
        compressors[0] if compressors else Compressor.LZ4_BLOCK,
        digesters[0] if digesters else Digester.BLAKE3,
    )


def check_chunk_size(version: int, chunk_size: int) -> None:
    """`BootstrapError` unless *chunk_size* is a power of two in the allowed range."""
    if not CHUNK_SIZE_MIN <= chunk_size <= CHUNK_SIZE_MAX or chunk_size & (chunk_size - 1):
        _refuse(version, f"chunk size {chunk_size:#x}")


def check_features_v6(blob_index: int, features: int) -> BlobFeature:
    """*features* of a v6 blob table entry; `BootstrapError` when they cannot be together."""
    where = f"features {features:#x} of blob {blob_index}"
    if features & (_INCOMPATIBLE_FEATURES | _INTERNAL_FEATURE):
        _refuse(6, f"{where} have unknown bits")
    found = BlobFeature(features & _KNOWN_FEATURES)
    aligned_wanted = not found & (BlobFeature.TARFS | BlobFeature.EXTERNAL)
    if aligned_wanted and not found & BlobFeature.ALIGNED:
        _refuse(6, f"{where} lack the alignment of chunks")
    if found & BlobFeature.TARFS and found & BlobFeature.ALIGNED:
        _refuse(6, f"{where} have tarfs and aligned chunks")
    needs_v2 = BlobFeature.ZRAN | BlobFeature.BATCH | BlobFeature.ENCRYPTED
    if found & needs_v2 and not found & BlobFeature.CHUNK_INFO_V2:
        _refuse(6, f"{where} need chunk entries of version 2")
    return found


def features_v5(features: int) -> BlobFeature:
    """*features* of an extended blob table entry; unknown bits are dropped."""
    return BlobFeature(features & _KNOWN_FEATURES)


def parse_blob_id(version: int, blob_index: int, raw: bytes) -> str:
    """The blob id *raw* of a blob table as text.

    `BootstrapError` when it cannot name a file: ids become names in the cache directory and in the
    backend's, so none may lead elsewhere.
    """
    where = f"id of blob {blob_index}"
    if not 0 < len(raw) <= BLOB_ID_MAX:
        _refuse(version, f"{where} has {len(raw)} bytes")
    try:
        blob_id = raw.decode()
    except UnicodeDecodeError:
        _refuse(version, f"{where} is not UTF-8")
    if "/" in blob_id or "\0" in blob_id or blob_id in {".", ".."} or not blob_id.isprintable():
        _refuse(version, f"{where} is {blob_id!r}, no name of a file")
    return blob_id


def data_size_v6(
    features: BlobFeature, compressed_size: int, ci_offset: int, ci_compressed_size: int
) -> int:
    """Where the chunk data of a v6 blob ends, in bytes from the start of the blob file."""
    if features & BlobFeature.SEPARATE:
        return compressed_size
    if features & BlobFeature.CAP_TAR_TOC and ci_compressed_size:
        header = TAR_HEADER_SIZE if features & BlobFeature.HAS_TAR_HEADER else 0
        return max(ci_offset - header, 0)
    return compressed_size


def data_size_v5(features: BlobFeature, compressed_size: int) -> int:
    """Where the chunk data of a v5 blob ends, in bytes from the start of the blob file."""
    if features & BlobFeature.CAP_TAR_TOC and features & BlobFeature.HAS_TAR_HEADER:
        return max(compressed_size - TAR_HEADER_SIZE, 0)
    return compressed_size


def name_blobs(
    blobs: Iterable[BlobInfo], file_blob_id: str, *, out_of_blob: bool
) -> list[BlobInfo]:
    """*blobs* with the ids that a bootstrap inside its own blob could not know.

    *file_blob_id* is the id that the bootstrap's (or blob's) file name gives; *out_of_blob* says
    that the bootstrap was taken out of a blob.
    """
    named = []
    for blob in blobs:
        inlined = bool(blob.features & BlobFeature.INLINED_FS_META)
        separate = bool(blob.features & BlobFeature.SEPARATE)
        old = out_of_blob and not blob.features & BlobFeature.CAP_TAR_TOC
        if inlined and separate:
            named.append(blob._replace(meta_blob_id=file_blob_id))
        elif inlined or (old and not separate):
            named.append(blob._replace(blob_id=file_blob_id, meta_blob_id=file_blob_id))
        else:
            named.append(blob)
    return named


def is_gzip_members(blob: BlobInfo) -> bool:
    """Whether each chunk is a gzip member whose stored size nobody knows (legacy eStargz)."""
    v2 = blob.features & BlobFeature.CHUNK_INFO_V2
    return blob.compressor == Compressor.GZIP and not v2


def refuse_unsupported(blobs: Iterable[BlobInfo]) -> None:
    """`UnsupportedError` for the first blob whose data this version cannot serve.

    Such images can be loaded and checked, but not mounted.
    """
    for blob in blobs:
        what = _unsupported(blob)
        if what:
            raise UnsupportedError(
                f"blob {blob.blob_id}: {what}, which this version does not serve: convert the "
                "image without it, or mount it with a later version"
            )


def _unsupported(blob: BlobInfo) -> str:
    kinds = {
        BlobFeature.EXTERNAL: "its data is in a foreign object (external)",
    }
    for feature, what in kinds.items():
        if blob.features & feature:
            return what
    if blob.features & BlobFeature.ENCRYPTED and blob.cipher == Cipher.NONE:
        return "it is encrypted, but its entry names no cipher"
    if blob.cipher not in {Cipher.NONE, Cipher.AES_128_XTS}:
        return f"it is encrypted ({blob.cipher.name})"
    untabled = blob.version == 6 and not blob.features & BlobFeature.TARFS
    if untabled and blob.chunk_count and not blob.ci_compressed_size:
        return "it has no table of its chunks (made before blob meta existed)"
    return ""
