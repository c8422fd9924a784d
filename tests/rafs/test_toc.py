import contextlib
import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import BlobCorrupt
from nydusd.codec.compression import compress
from nydusd.rafs.blobs import Compressor
from nydusd.rafs.toc import (
    Section,
    check_stored_toc,
    find_sections,
    open_section,
    parse_tar_header,
    parse_toc,
    tail_size,
)
from tests.rafs.made import tar_header


def toc_entry(
    name: bytes, flags: int, offset: int, stored: int, plain: int, digest: bytes
) -> bytes:
    return struct.pack("<I4x16s32sQQQ48x", flags, name, digest, offset, stored, plain)


def test_a_header_gives_name_and_size() -> None:
    assert parse_tar_header(tar_header(b"image.boot", b"00000000100")) == ("image.boot", 64)
    large = b"\x80" + bytes(3) + (2**40).to_bytes(8, "big")
    assert parse_tar_header(tar_header(b"image.blob", large)) == ("image.blob", 2**40)


@pytest.mark.parametrize(
    "block",
    [
        b"",
        bytes(511),
        bytes(512),
        tar_header(b"x", b"00000000100")[:-1],
        tar_header(b"x", b"0000000010z"),
        tar_header(b"x", b"00000000100", b"other"),
        tar_header(b"x", b"00000000100").replace(b"x", b"y", 1),
    ],
)
def test_a_block_that_is_no_header_is_none(block: bytes) -> None:
    assert parse_tar_header(block) is None


def test_a_plain_bootstrap_is_found_before_its_header() -> None:
    tail = bytes(1000) + tar_header(b"image.boot", b"%011o" % 700)

    assert find_sections(tail, 10_000) == {
        "image.boot": Section("image.boot", Compressor.NONE, 10_000 - 512 - 700, 700, 700, b"")
    }


def test_a_bootstrap_larger_than_its_blob_is_not_found() -> None:
    assert find_sections(tar_header(b"image.boot", b"%011o" % 700), 1000) == {}
    assert find_sections(tar_header(b"image.boot", b"%011o" % 0), 1000) == {}


def test_a_table_of_contents_is_read_from_the_tail() -> None:
    digest = b"d" * 32
    toc = toc_entry(b"image.blob", 1, 2**60, 27, 4096, digest)
    toc += toc_entry(b"blob.meta.header", 1, 27, 4096, 4096, bytes(32))
    toc += toc_entry(b"image.boot", 2, 5000, 300, 20480, digest)
    tail = toc + tar_header(b"rafs.blob.toc", b"%011o" % len(toc))

    sections = find_sections(b"junk" + tail, 6000)

    assert list(sections) == ["image.blob", "blob.meta.header", "image.boot"]
    assert sections["image.boot"][1:] == (Compressor.ZSTD, 5000, 300, 20480, digest)
    assert sections["blob.meta.header"].digest == b""
    assert find_sections(tail, 6000) == sections


@pytest.mark.parametrize(
    "entry",
    [
        toc_entry(b"image.boot", 4, 0, 1, 1, b""),
        toc_entry(b"image.boot", 0, 0, 1, 1, b""),
        toc_entry(b"image.boot", 1, 6001, 0, 1, b""),
        toc_entry(b"image.boot", 1, 1, 2**64 - 1, 1, b""),
        toc_entry(b"image.boot", 2, 0, 1, 2**32, b""),
        b"no entry",
    ],
    ids=["lz4", "no compression", "outside", "too long", "too large", "cut"],
)
def test_an_entry_that_cannot_be_is_refused(entry: bytes) -> None:
    with pytest.raises(BlobCorrupt, match="table of contents"):
        parse_toc(entry, 6000)


def test_a_table_longer_than_what_was_read_is_refused() -> None:
    with pytest.raises(BlobCorrupt, match="more than the blob's tail"):
        find_sections(tar_header(b"rafs.blob.toc", b"%011o" % 4096), 6000)


def test_a_section_is_opened_and_checked() -> None:
    plain = b"content " * 500
    stored = compress(Compressor.ZSTD, plain)
    section = Section(
        "image.boot", Compressor.ZSTD, 0, len(stored), 4000, hashlib.sha256(plain).digest()
    )

    assert open_section(section, stored) == plain
    with pytest.raises(BlobCorrupt, match="does not match its digest"):
        open_section(section._replace(digest=b"d" * 32), stored)
    with pytest.raises(BlobCorrupt, match="bytes were read"):
        open_section(section, stored[:-1])
    with pytest.raises(BlobCorrupt):
        open_section(section._replace(uncompressed_size=3999), stored)
    with pytest.raises(BlobCorrupt, match="plain bytes"):
        open_section(section._replace(compressor=Compressor.NONE), stored)


def test_a_stored_table_is_checked_against_the_bootstraps_digest() -> None:
    check_stored_toc(b"any", b"")
    check_stored_toc(b"toc", hashlib.sha256(b"toc").digest())
    with pytest.raises(BlobCorrupt, match="digest in the bootstrap"):
        check_stored_toc(b"toc", hashlib.sha256(b"other").digest())


def test_the_tail_is_at_most_a_page_and_in_whole_entries() -> None:
    assert [tail_size(size) for size in (0, 127, 700, 4095, 10**9)] == [0, 0, 640, 3968, 4096]


@given(st.binary(max_size=1500), st.integers(0, 2**40))
def test_any_tail_is_read_or_refused(tail: bytes, size: int) -> None:
    header = tar_header(b"rafs.blob.toc", b"%011o" % (len(tail) // 128 * 128))
    for data in (tail, tail + header):
        with contextlib.suppress(BlobCorrupt):
            find_sections(data, size)


def test_a_section_that_claims_to_become_a_thousand_times_as_long_is_refused() -> None:
    entry = toc_entry(b"image.boot", 2, 0, 100_000, 1 << 30, bytes(32))

    with pytest.raises(BlobCorrupt, match="100000 bytes that become 1073741824"):
        parse_toc(entry, 1 << 20)
