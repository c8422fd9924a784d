import random

import pytest
import zstandard

from nydusd.build import meta_compression
from nydusd.build.meta_compression import BLOCK_BYTES, compress_meta
from nydusd.rafs.blobs import Compressor

LONG = b"".join(b"%08d" % random.Random(1).randrange(100) for _ in range(BLOCK_BYTES // 4))


@pytest.mark.parametrize("plain", [b"a" * 1000, LONG])
@pytest.mark.parametrize("with_library", [True, False])
def test_what_is_compressed_comes_back(monkeypatch, plain, with_library):
    if not with_library:
        monkeypatch.setattr(meta_compression, "library", lambda: None)

    compressor, stored = compress_meta(Compressor.ZSTD, plain)

    assert compressor == Compressor.ZSTD
    assert zstandard.decompress(stored, max_output_size=len(plain)) == plain


@pytest.mark.parametrize("plain", [b"", b"x", random.Random(1).randbytes(5000)])
def test_what_does_not_shrink_is_stored_plain(plain):
    assert compress_meta(Compressor.ZSTD, plain) == (Compressor.NONE, plain)


def test_none_is_none():
    assert compress_meta(Compressor.NONE, b"a" * 1000) == (Compressor.NONE, b"a" * 1000)
