import contextlib
import gzip
import zlib

import lz4.block
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import BlobCorrupt, UnsupportedError
from nydusd.codec.compression import compress, decompress, decompress_into, decompress_many

NONE, LZ4, GZIP, ZSTD = range(4)
TEXT = b"the quick brown fox " * 1000


@pytest.mark.parametrize("compressor", [NONE, LZ4, ZSTD])
@given(plain=st.binary(max_size=5000))
def test_what_is_compressed_comes_back(compressor, plain):
    assert decompress(compressor, compress(compressor, plain), len(plain)) == plain


def test_lz4_blocks_have_no_size_prefix():
    assert lz4.block.decompress(compress(LZ4, TEXT), uncompressed_size=len(TEXT)) == TEXT
    assert decompress(LZ4, lz4.block.compress(TEXT, store_size=False), len(TEXT)) == TEXT


def test_zstd_frames_are_read_by_any_zstd():
    assert zstandard.ZstdDecompressor().decompress(compress(ZSTD, TEXT)) == TEXT


def test_a_gzip_member_gives_its_first_bytes_whatever_follows():
    stored = gzip.compress(TEXT) + b"neighbour"
    assert decompress(GZIP, stored, len(TEXT)) == TEXT
    assert decompress(GZIP, stored, 100) == TEXT[:100]


@pytest.mark.parametrize("compressor", [NONE, LZ4, ZSTD])
@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_than_promised_is_corrupt(compressor, change):
    with pytest.raises(BlobCorrupt):
        decompress(compressor, compress(compressor, TEXT), len(TEXT) + change)


def test_a_short_gzip_member_is_corrupt():
    with pytest.raises(BlobCorrupt):
        decompress(GZIP, gzip.compress(TEXT), len(TEXT) + 1)


@pytest.mark.parametrize("compressor", [LZ4, GZIP, ZSTD])
@given(stored=st.binary(max_size=300), size=st.integers(0, 5000))
def test_any_bytes_decode_or_are_refused(compressor, stored, size):
    with contextlib.suppress(BlobCorrupt):
        assert len(decompress(compressor, stored, size)) == size


def test_a_frame_that_grows_a_thousandfold_is_stopped_at_the_promised_size():
    bomb = zstandard.ZstdCompressor().compress(bytes(1 << 28))
    assert decompress_many(ZSTD, [bomb, bomb], [4096, 4096]) == [None, None]
    with pytest.raises(BlobCorrupt):
        decompress(ZSTD, bomb, 4096)


def test_the_content_size_of_a_frame_is_not_believed():
    frame = bytearray(zstandard.ZstdCompressor().compress(bytes(1 << 20)))
    assert frame[4] & 0xC0 == 0x80  # four bytes of content size follow
    frame[5:9] = (0xFFFFFFF0).to_bytes(4, "little")
    assert decompress_many(ZSTD, [bytes(frame)] * 2, [4096, 4096]) == [None, None]


def test_many_chunks_decode_as_one_by_one():
    plain = [bytes([i]) * size for i, size in enumerate([1, 4096, 65535, 65536, 1 << 20, 0, 7, 8])]
    stored = [zstandard.ZstdCompressor().compress(data) for data in plain]
    assert decompress_many(ZSTD, stored, [len(data) for data in plain]) == plain


def test_a_bad_chunk_spoils_only_itself():
    stored = [compress(ZSTD, TEXT), b"no frame", compress(ZSTD, TEXT)]
    assert decompress_many(ZSTD, stored, [len(TEXT)] * 3) == [TEXT, None, TEXT]
    stored = [compress(LZ4, TEXT), b"\xff\xff", compress(LZ4, TEXT)]
    assert decompress_many(LZ4, stored, [len(TEXT)] * 3) == [TEXT, None, TEXT]


def test_bytes_are_decoded_into_the_given_buffer():
    target = bytearray(len(TEXT) + 2)
    decompress_into(ZSTD, compress(ZSTD, TEXT), memoryview(target)[1:-1])
    assert target == b"\0" + TEXT + b"\0"


def test_unknown_compressors_and_writing_gzip_are_refused():
    with pytest.raises(UnsupportedError):
        decompress(9, b"", 0)
    with pytest.raises(UnsupportedError):
        compress(GZIP, b"x")


def test_raw_deflate_is_not_gzip():
    with pytest.raises(BlobCorrupt):
        decompress(GZIP, zlib.compress(TEXT), len(TEXT))
