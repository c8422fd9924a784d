import tracemalloc

import pytest
import zstandard

from nydusd.base.errors import BlobCorrupt
from nydusd.cache import meta_pieces
from nydusd.cache.meta_pieces import plain_pieces
from nydusd.codec.compression import compress
from nydusd.rafs.blobs import Compressor
from tests.rafs.made import BLOB

PLAIN = b"".join(number.to_bytes(3, "little") for number in range(100_000))


class Reader:
    """A blob in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[int, int]] = []

    def size(self) -> int:
        return len(self.data)

    def read_into(self, buffer, offset: int) -> None:
        view = memoryview(buffer)
        self.asked.append((offset, len(view)))
        view[:] = self.data[offset : offset + len(view)]

    def close(self) -> None:
        pass


def blob(stored: bytes, compressor: Compressor, plain_size: int = len(PLAIN)):
    return BLOB._replace(
        ci_compressor=compressor,
        ci_offset=7,
        ci_compressed_size=len(stored),
        ci_uncompressed_size=plain_size,
    )


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(meta_pieces, "PIECE_BYTES", 10_000)


@pytest.mark.parametrize("compressor", [Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD])
def test_the_pieces_are_the_plain_array(compressor):
    stored = compress(compressor, PLAIN)
    pieces = list(plain_pieces(blob(stored, compressor), Reader(b"before." + stored + b"after")))

    assert b"".join(pieces) == PLAIN
    if compressor != Compressor.LZ4_BLOCK:
        assert max(map(len, pieces)) <= 10_000


def test_no_byte_is_asked_for_twice_or_beyond_the_array():
    stored = compress(Compressor.ZSTD, PLAIN)
    reader = Reader(b"before." + stored)
    list(plain_pieces(blob(stored, Compressor.ZSTD), reader))

    ends = [offset + size for offset, size in reader.asked]
    assert [offset for offset, _ in reader.asked] == [7, *ends[:-1]]
    assert ends[-1] == 7 + len(stored)


@pytest.mark.parametrize("compressor", [Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD])
@pytest.mark.parametrize("difference", [-1, 1, -len(PLAIN)])
def test_an_array_of_another_size_is_corrupt(compressor, difference):
    stored = compress(compressor, PLAIN)
    info = blob(stored, compressor, len(PLAIN) + difference)
    with pytest.raises(BlobCorrupt):
        list(plain_pieces(info, Reader(b"before." + stored)))


def test_an_array_that_does_not_decode_is_corrupt():
    stored = compress(Compressor.ZSTD, PLAIN)[:-100] + bytes(100)
    with pytest.raises(BlobCorrupt, match="table of chunks"):
        list(plain_pieces(blob(stored, Compressor.ZSTD), Reader(b"before." + stored)))


def test_a_frame_of_a_thousandfold_size_is_given_up_early():
    stored = zstandard.compress(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(BlobCorrupt):
            for _ in plain_pieces(blob(stored, Compressor.ZSTD, 100), Reader(bytes(7) + stored)):
                pass
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
