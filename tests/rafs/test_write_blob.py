import struct
import tarfile

import pytest

from nydusd.rafs.blobs import Compressor
from nydusd.rafs.toc import TOC_SECTION, parse_tar_header, parse_toc
from nydusd.rafs.write_blob import BLOB_SECTION, ci_header, tar_header, toc_entry


@pytest.mark.parametrize("size", [0, 1, 0o77777777777, 1 << 33, 1 << 50])
def test_a_section_header_is_a_tar_header(size):
    header = tar_header(TOC_SECTION, size)

    assert len(header) == 512
    assert parse_tar_header(header) == (TOC_SECTION, size)
    found = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
    assert (found.name, found.size, found.type) == (TOC_SECTION, size, tarfile.REGTYPE)


def test_a_row_of_the_table_of_contents_is_read_back():
    row = toc_entry(BLOB_SECTION, Compressor.ZSTD, b"d" * 32, 7, 20, 4096)

    section = parse_toc(row, 1 << 20)[BLOB_SECTION]

    assert section.compressor == Compressor.ZSTD
    assert (section.offset, section.compressed_size, section.uncompressed_size) == (7, 20, 4096)
    assert section.digest == b"d" * 32


def test_the_header_of_a_ci_array_has_a_magic_at_both_ends():
    header = ci_header(0x40000001, 3, 5, 100, 60, 80)

    assert len(header) == 4096
    assert struct.unpack_from("<IIIIQQQQQI", header) == (
        0xB10BB10B, 0x40000001, 3, 5, 100, 60, 80, 0, 0, 0,
    )  # fmt: skip
    assert header[60:4092] == bytes(4032)
    assert header[4092:] == b"\x0b\xb1\x0b\xb1"


def test_a_name_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="section"):
        tar_header("x" * 101, 1)
    with pytest.raises(ValueError, match="section"):
        toc_entry("x" * 17, Compressor.NONE, b"d" * 32, 0, 0, 0)
    with pytest.raises(ValueError, match="digest of 3"):
        toc_entry("x", Compressor.NONE, b"ddd", 0, 0, 0)
