"""What a bootstrap tells Python callers: plain records of inodes, names and chunks.

The compiled path works on structs (`rafs/bootstrap.pxd`); these are for the checker, the hints of
what to fetch first, and tests.
"""

from nydusd.base.record import NamedTuple
from nydusd.rafs.blobs import BlobInfo


class Tables(NamedTuple):
    """What the tables of a bootstrap say that is not read again from the mapping."""

    blobs: list[BlobInfo]
    prefetch_inos: list[int]
    digester: int = 0  # v5: of the whole image


class Stat(NamedTuple):
    """Attributes of one inode, as the image has them."""

    ino: int
    size: int  # bytes
    blocks: int  # 512 bytes each
    mtime: int  # seconds, may be negative
    mtime_nsec: int
    mode: int  # with type bits
    nlink: int
    uid: int
    gid: int
    rdev: int  # Linux 32-bit encoding; 0 unless a device


class Entry(NamedTuple):
    """One name of a directory."""

    name: bytes
    ino: int
    kind: int  # S_IFMT bits >> 12; 0 = the directory does not tell


class Walked(NamedTuple):
    """One name of an image, met on the way through it."""

    path: bytes  # absolute; the root is b"/"
    ino: int


class Span(NamedTuple):
    """A run of a file's bytes: a piece of one chunk, or zeros. Terms: `ChunkSpan`."""

    flags: int  # SPAN_*: 1 hole, 2 placed, 4 direct
    blob_index: int
    chunk_index: int
    offset: int
    length: int
    uncompressed_size: int
    uncompressed_offset: int
    compressed_offset: int
    compressed_size: int
    chunk_flags: int
    crc32: int
    digest: bytes | None
