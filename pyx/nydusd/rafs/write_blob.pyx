"""What a data blob holds beside its chunks: CI header, tar headers, rows of the table of contents.

Where each goes is the packer's business (rafs-format: data blobs, sections).
"""

from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy

from nydusd.rafs.ondisk_blob cimport (
    CI_HEADER_MAGIC,
    CI_HEADER_SIZE,
    TOC_NONE,
    TOC_ZSTD,
    CiHeader,
    TarHeader,
    TocEntry,
)

from nydusd.rafs.blobs import Compressor

cdef enum:
    TAR_OCTAL_SIZE_END = 0o100000000000     # 8 GiB: eleven octal digits
    TAR_BASE_256 = 0x80

BLOB_SECTION = "image.blob"     # the others are named in toc


def ci_header(int features, int compressor, uint64_t entries, uint64_t offset,
              uint64_t compressed_size, uint64_t uncompressed_size):
    """The 4096 bytes behind a stored CI array of *entries* chunks at *offset* of its blob."""
    cdef CiHeader header
    cdef bytes zeros = bytes(sizeof(header))
    memcpy(&header, <const char *>zeros, sizeof(header))
    header.magic = header.magic2 = CI_HEADER_MAGIC
    header.features = <unsigned int>features
    header.ci_compressor = <unsigned int>compressor
    header.entries = <unsigned int>entries
    header.ci_offset = offset
    header.ci_compressed_size = compressed_size
    header.ci_uncompressed_size = uncompressed_size
    return (<const char *>&header)[:CI_HEADER_SIZE]


def tar_header(str section, uint64_t size):
    """The 512 bytes behind a section of *size* bytes: a GNU tar header of a regular file."""
    cdef TarHeader header
    cdef bytes zeros = bytes(sizeof(header))
    cdef bytes name = section.encode()
    cdef bytes digits
    cdef const uint8_t *raw = <const uint8_t *>&header
    cdef uint64_t total = 0
    cdef size_t i
    if len(name) > sizeof(header.name):
        raise ValueError(f"a section name of {len(name)} bytes")
    memcpy(&header, <const char *>zeros, sizeof(header))
    memcpy(header.name, <const char *>name, len(name))
    if size < TAR_OCTAL_SIZE_END:
        digits = b"%011o" % size
        memcpy(header.size, <const char *>digits, 11)
    else:
        digits = size.to_bytes(12, "big")
        memcpy(header.size, <const char *>digits, 12)
        header.size[0] |= TAR_BASE_256
    memcpy(header.mtime, b"00000000000", 11)
    header.typeflag = b"0"
    memcpy(header.magic, b"ustar  ", 8)
    memcpy(header.checksum, b"        ", 8)
    for i in range(sizeof(header)):
        total += raw[i]
    digits = b"%07o" % total
    memcpy(header.checksum, <const char *>digits, 7)
    header.checksum[7] = 0
    return (<const char *>&header)[:sizeof(header)]


def toc_entry(str section, compressor, bytes digest, uint64_t offset, uint64_t compressed_size,
              uint64_t uncompressed_size):
    """One 128-byte row of the table of contents; *digest* is the sha256 of the plain section."""
    cdef TocEntry entry
    cdef bytes name = section.encode()
    cdef bytes zeros = bytes(sizeof(entry))
    if len(name) > sizeof(entry.name) or len(digest) != sizeof(entry.digest):
        raise ValueError(f"section {name!r} with a digest of {len(digest)} bytes")
    memcpy(&entry, <const char *>zeros, sizeof(entry))
    entry.flags = TOC_ZSTD if compressor == Compressor.ZSTD else TOC_NONE
    memcpy(entry.name, <const char *>name, len(name))
    memcpy(entry.digest, <const char *>digest, len(digest))
    entry.offset = offset
    entry.compressed_size = compressed_size
    entry.uncompressed_size = uncompressed_size
    return (<const char *>&entry)[:sizeof(entry)]
