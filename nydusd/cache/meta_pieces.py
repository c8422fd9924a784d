"""A blob's CI array, plain, in pieces: that of a gzip layer is 30 MiB for each GiB of it.

Called by `cache.sidecars`, which writes the pieces to a file and maps it: neither the stored bytes
nor the plain ones are ever in memory as a whole. Any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nydusd.base.errors import BlobCorrupt
from nydusd.codec.compression import ZSTD_WINDOW_LIMIT, decompress
from nydusd.rafs.blobs import Compressor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nydusd.backend.interface import BlobReader
    from nydusd.rafs.blobs import BlobInfo

PIECE_BYTES = 4 << 20  # of one backend request, and of what is plain at a time


class StoredArray:
    """The stored bytes of the CI array as a stream, from one request after the other."""

    def __init__(self, info: BlobInfo, reader: BlobReader) -> None:
        self._reader = reader
        self._at = info.ci_offset
        self._end = info.ci_offset + info.ci_compressed_size

    def read(self, size: int) -> bytes:
        """The next *size* bytes, fewer at the end."""
        piece = bytearray(max(min(size, self._end - self._at), 0))
        if piece:
            self._reader.read_into(piece, self._at)
            self._at += len(piece)
        return bytes(piece)


def plain_pieces(info: BlobInfo, reader: BlobReader) -> Iterator[bytes]:
    """The pieces of the plain CI array of *info*, together exactly of the size that is due.

    `BlobCorrupt` when they are not, or do not decode.
    """
    left = info.ci_uncompressed_size
    for piece in _pieces(info, StoredArray(info, reader)):
        left -= len(piece)
        if left < 0:
            break
        yield piece
    if left:
        raise BlobCorrupt(
            f"blob {info.meta_blob_id}: its table of chunks has not the "
            f"{info.ci_uncompressed_size} bytes that the bootstrap tells"
        )


def _pieces(info: BlobInfo, stored: StoredArray) -> Iterator[bytes]:
    if info.ci_compressor == Compressor.NONE:
        while piece := stored.read(PIECE_BYTES):
            yield piece
    elif info.ci_compressor == Compressor.ZSTD:
        yield from _zstd_pieces(info, stored)
    else:
        array = stored.read(info.ci_compressed_size)
        yield decompress(info.ci_compressor, array, info.ci_uncompressed_size)


def _zstd_pieces(info: BlobInfo, stored: StoredArray) -> Iterator[bytes]:
    import zstandard  # 15 ms, and mostly imported by then

    plain = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_LIMIT)
    try:
        # The stub wants more of a source than `read`.
        source: Any = stored
        with plain.stream_reader(source, read_size=PIECE_BYTES) as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except zstandard.ZstdError as exc:
        raise BlobCorrupt(
            f"blob {info.meta_blob_id}: its table of chunks does not decode: {exc}"
        ) from exc
