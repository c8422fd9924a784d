"""What stands at a blob's tail: tar headers, and the table of contents (ToC) if there is one.

Works on bytes that the caller has read, knows no file and no backend: `load` uses it for local
blobs, the cache's sidecars for others. Rules: docs/formats/blobs.md.
"""

from nydusd.base.record import NamedTuple

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from nydusd.rafs.ondisk_blob cimport (
    TOC_COMPRESSION_MASK, TOC_NONE, TOC_ZSTD, TarHeader, TocEntry,
)

from nydusd.base.errors import BlobCorrupt
from nydusd.rafs.areas import inflates_too_much
from nydusd.rafs.blobs import Compressor

TAIL_SIZE = 4096                # what is read from a blob's end to look for a ToC, bytes
SECTION_SIZE_MAX = 1 << 31      # of a bootstrap or a table, plain, bytes
BOOTSTRAP_SECTION = "image.boot"
TOC_SECTION = "rafs.blob.toc"
CI_SECTION = "blob.meta"
CI_HEADER_SECTION = "blob.meta.header"
DIGEST_SECTION = "blob.digest"


class Section(NamedTuple):
    """One piece of a blob file."""

    name: str
    compressor: Compressor
    offset: int  # in the blob file
    compressed_size: int  # bytes, as stored
    uncompressed_size: int  # bytes
    digest: bytes  # sha256 of the plain bytes; empty = not known


def tail_size(blob_size: int) -> int:
    """How many bytes to read from the end of a blob of *blob_size* bytes."""
    return min(TAIL_SIZE, blob_size & ~127)


def parse_tar_header(const uint8_t[::1] block):
    """Name and size that the 512 bytes of a tar header give, or None when they are none."""
    cdef const TarHeader *header
    cdef const uint8_t *raw
    cdef uint32_t found = 0
    cdef int i
    if block.shape[0] != sizeof(TarHeader):
        return None
    raw = &block[0]
    header = <const TarHeader *>raw
    for i in range(<int>sizeof(TarHeader)):
        found += c' ' if 148 <= i < 156 else raw[i]
    stored = octal((<const char *>header.checksum)[:sizeof(header.checksum)])
    size_field = (<const char *>header.size)[:sizeof(header.size)]
    if size_field[0] & 0x80:    # base 256: sizes of 8 GiB and more
        size = int.from_bytes(size_field[1:], "big")
    else:
        size = octal(size_field)
    if (stored is None or size is None or stored != found or header.typeflag not in (c'0', 0)
            or (<const char *>header.magic)[:5] != b"ustar"):
        return None
    name = (<const char *>header.name)[:sizeof(header.name)].split(b"\0", 1)[0]
    return name.decode(errors="replace"), size


cdef bytes sha256(bytes data):
    """The sha256 of *data*; hashlib is imported when there is something to check."""
    import hashlib
    return hashlib.sha256(data).digest()


cdef object octal(bytes field):
    """The number that *field* of a tar header holds in octal digits; None when it is none."""
    digits = field.strip(b"\0 ")
    if not digits or digits.strip(b"01234567"):
        return None
    return int(digits, 8)


def parse_toc(const uint8_t[::1] data, blob_size: int):
    """The sections that a ToC of a blob of *blob_size* bytes lists, by name.

    `BlobCorrupt` when one lies outside the blob, or is stored in a way that no reader knows.
    """
    cdef const TocEntry *entry
    cdef Py_ssize_t i
    cdef Py_ssize_t count = data.shape[0] // <Py_ssize_t>sizeof(TocEntry)
    sections = {}
    if data.shape[0] % <Py_ssize_t>sizeof(TocEntry):
        raise BlobCorrupt(f"table of contents has {data.shape[0]} bytes, no whole entries")
    for i in range(count):
        entry = <const TocEntry *>(&data[0] + i * <Py_ssize_t>sizeof(TocEntry))
        name = (<const char *>entry.name)[:sizeof(entry.name)].rstrip(b"\0").decode(
            errors="replace")
        if entry.flags & TOC_COMPRESSION_MASK == TOC_NONE:
            compressor = Compressor.NONE
        elif entry.flags & TOC_COMPRESSION_MASK == TOC_ZSTD:
            compressor = Compressor.ZSTD
        else:
            raise BlobCorrupt(f"table of contents: {name!r} is stored as {entry.flags:#x}")
        digest = (<const char *>entry.digest)[:sizeof(entry.digest)]
        # the place of the chunk data is told by the blob table; old builders have it wrong here
        if name != "image.blob" and (entry.offset > <uint64_t>blob_size
                                     or entry.compressed_size > <uint64_t>blob_size - entry.offset
                                     or entry.uncompressed_size > <uint64_t>SECTION_SIZE_MAX):
            raise BlobCorrupt(
                f"table of contents: {name!r} has {entry.compressed_size} bytes at "
                f"{entry.offset} in a blob of {blob_size}"
            )
        if name != "image.blob" and inflates_too_much(entry.uncompressed_size,
                                                      entry.compressed_size):
            raise BlobCorrupt(
                f"table of contents: {name!r} has {entry.compressed_size} bytes that become "
                f"{entry.uncompressed_size}"
            )
        sections[name] = Section(name, compressor, entry.offset, entry.compressed_size,
                                 entry.uncompressed_size, digest if any(digest) else b"")
    return sections


def find_sections(tail: bytes, blob_size: int):
    """The sections that the last bytes of a blob tell of, by name; {} when they tell nothing.

    With a ToC all that it lists, else at most a plain bootstrap. *tail*: `tail_size` bytes, or
    exactly the ToC with its header. `BlobCorrupt` when there is a ToC that cannot be.
    """
    header = parse_tar_header(tail[max(len(tail) - 512, 0):])
    if header is None:
        return {}
    name, size = header
    end = blob_size - <Py_ssize_t>sizeof(TarHeader)
    if name == TOC_SECTION:
        if size > len(tail) - 512:
            raise BlobCorrupt(f"table of contents has {size} bytes, more than the blob's tail")
        start = len(tail) - 512 - size
        return parse_toc(tail[start:start + size], blob_size)
    if name == BOOTSTRAP_SECTION and 0 < size <= min(end, SECTION_SIZE_MAX):
        return {name: Section(name, Compressor.NONE, end - size, size, size, b"")}
    return {}


def check_stored_toc(stored: bytes, digest: bytes):
    """`BlobCorrupt` unless *stored*, ToC and header, has the sha256 *digest* (empty: any)."""
    if digest and sha256(stored) != digest:
        raise BlobCorrupt("table of contents does not match the digest in the bootstrap")


def open_section(section: Section, stored: bytes):
    """The plain bytes of *section*, whose *stored* ones were read; `BlobCorrupt` if they differ."""
    if len(stored) != section.compressed_size:
        raise BlobCorrupt(
            f"{section.name}: {len(stored)} bytes were read of {section.compressed_size}"
        )
    if section.compressor == Compressor.NONE:
        plain = bytes(stored)
    else:
        # here, since a start with an ordinary bootstrap has no use for it
        from nydusd.codec.compression import decompress
        plain = decompress(section.compressor, stored, section.uncompressed_size)
    if len(plain) != section.uncompressed_size:
        raise BlobCorrupt(
            f"{section.name}: {len(plain)} plain bytes instead of {section.uncompressed_size}"
        )
    if section.digest and sha256(plain) != section.digest:
        raise BlobCorrupt(f"{section.name} does not match its digest in the table of contents")
    return plain
