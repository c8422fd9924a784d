import threading

import pytest

from nydusd.backend.interface import STREAM_PIECE_BYTES
from nydusd.base.errors import BackendError
from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.stream import stream_blob
from nydusd.config.model import Prefetch
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, device

CONFIG = Prefetch(enable=True, threads=2, batch_size=128 << 10, stream_prefetch=True)


class StreamReader:
    """Passes on to *reader*, but gives the blob as one stream of *piece* bytes at a time."""

    def __init__(self, reader, piece: int, broken_at: int = -1) -> None:
        self.reader = reader
        self.piece = piece
        self.broken_at = broken_at  # breaks off there, once
        self.streams: list[int] = []
        self.given_up = 0

    def size(self) -> int:
        return self.reader.size()

    def read_into(self, buffer, offset: int, *, background: bool = False) -> None:
        self.reader.read_into(buffer, offset)

    def close(self) -> None:
        self.reader.close()

    def stream(self, offset: int):
        self.streams.append(offset)
        try:
            while offset < len(self.reader.data):
                if offset <= self.broken_at < offset + self.piece:
                    self.broken_at = -1
                    raise BackendError("the line is cut")
                yield self.reader.data[offset : offset + self.piece]
                offset += self.piece
        finally:
            self.given_up += 1


class StreamBackend(MadeBackend):
    """One blob, whose reader streams."""

    def __init__(self, blob: MadeBlob, piece: int, broken_at: int = -1) -> None:
        super().__init__(blob)
        self.stream_reader = StreamReader(super().reader(blob.blob_id), piece, broken_at)

    def reader(self, blob_id: str):
        return self.stream_reader


def blob_of(count: int, compressor: Compressor = Compressor.ZSTD) -> MadeBlob:
    return MadeBlob([bytes([i % 251, i % 7]) * 2500 for i in range(count)], 6, compressor)


def fill(filled) -> int:
    blob = filled.blobs[0]
    blob.load_description()
    return stream_blob(blob, threading.Event(), lambda size: True)


@pytest.mark.parametrize("compressor", [Compressor.NONE, Compressor.ZSTD, Compressor.LZ4_BLOCK])
@pytest.mark.parametrize("piece", [777, 5000, 1 << 20])
@pytest.mark.parametrize("compressed", [False, True])
def test_one_stream_fills_the_blob(tmp_path, monkeypatch, compressor, piece, compressed):
    monkeypatch.setattr("nydusd.cache.stream.WINDOW_BYTES", 9000)
    blob = blob_of(100, compressor)
    backend = StreamBackend(blob, piece)
    filled = device(blob, backend, tmp_path, compressed=compressed)
    received = fill(filled)
    assert filled.blobs[0].complete
    assert backend.stream_reader.streams == [0]
    assert backend.data_requests(blob) == []
    assert received >= blob.data_size
    filled.close()


def test_a_stream_begins_at_the_first_missing_chunk(tmp_path):
    blob = blob_of(100, Compressor.NONE)
    backend = StreamBackend(blob, 4000)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(
        filled, CONFIG._replace(stream_prefetch=False), [blob.span(i) for i in range(10)]
    )
    prefetcher.start()
    assert prefetcher.wait(60)
    prefetcher.close()
    fill(filled)
    assert backend.stream_reader.streams == [10 * 5000]
    assert filled.blobs[0].complete
    assert fill(filled) == 0
    filled.close()


def test_a_stream_that_breaks_off_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.stream.PAUSE_SECONDS", 0.0)
    monkeypatch.setattr("nydusd.cache.stream.WINDOW_BYTES", 20000)
    blob = blob_of(100, Compressor.NONE)
    backend = StreamBackend(blob, 5000, broken_at=300_000)
    filled = device(blob, backend, tmp_path)
    fill(filled)
    assert filled.blobs[0].complete
    assert backend.stream_reader.streams[0] == 0
    assert 270_000 <= backend.stream_reader.streams[1] <= 300_000
    filled.close()


def test_a_line_that_stays_cut_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.stream.PAUSE_SECONDS", 0.0)
    blob = blob_of(20)
    backend = StreamBackend(blob, 100)
    monkeypatch.setattr(backend.stream_reader, "stream", broken_stream)
    filled = device(blob, backend, tmp_path)
    with pytest.raises(BackendError, match="cut"):
        fill(filled)
    filled.close()


def broken_stream(offset: int):
    raise BackendError("the line is cut")


def test_a_stream_with_a_wrong_chunk_keeps_the_others_and_ends(tmp_path):
    blob = blob_of(50, Compressor.NONE)
    blob.data[20 * 5000] ^= 1
    backend = StreamBackend(blob, 1 << 20)
    filled = device(blob, backend, tmp_path)
    fill(filled)
    assert filled.blobs[0].chunks.ready_count() == 49
    assert len(backend.stream_reader.streams) == 1
    filled.close()


def test_a_stop_gives_the_rest_up(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.stream.WINDOW_BYTES", 1)
    blob = blob_of(100, Compressor.NONE)
    backend = StreamBackend(blob, 5000)
    filled = device(blob, backend, tmp_path)
    blob_to_fill = filled.blobs[0]
    blob_to_fill.load_description()
    stop = threading.Event()
    pieces = []

    def may_go_on(size: int) -> bool:
        pieces.append(size)
        if len(pieces) == 3:
            stop.set()
        return len(pieces) < 3

    assert stream_blob(blob_to_fill, stop, may_go_on) == 15000
    assert backend.stream_reader.given_up == 1
    assert blob_to_fill.chunks.ready_count() == 3
    filled.close()


def test_prefetch_streams_after_what_is_hinted(tmp_path):
    blob = blob_of(100, Compressor.NONE)
    backend = StreamBackend(blob, 1 << 20)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(filled, CONFIG._replace(threads=1), [blob.span(90)])
    prefetcher.start()
    assert prefetcher.wait(60)
    assert filled.blobs[0].complete
    assert backend.data_requests(blob) == [(90 * 5000, 5000)]
    assert backend.stream_reader.streams == [0]
    progress = prefetcher.progress()
    assert progress.requests == 2
    assert progress.ready_chunks == 100
    prefetcher.close()
    filled.close()


def test_a_backend_without_streams_of_its_own_is_asked_piece_by_piece(tmp_path):
    blob = MadeBlob([bytes([i]) * (1 << 20) for i in range(3)], 6, Compressor.NONE)
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    fill(filled)
    assert filled.blobs[0].complete
    assert {size for _, size in backend.data_requests(blob)} == {STREAM_PIECE_BYTES}
    filled.close()
