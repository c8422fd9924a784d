"""What is brought along beside the chunks of a read."""

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, device


def test_without_a_batch_size_exactly_the_chunks_of_the_read_are_fetched(tmp_path):
    blob = MadeBlob(chunks([4096] * 20), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 0)
    read_spans(with_cache, [blob.span(3), blob.span(4), blob.span(9)])
    assert backend.data_requests(blob) == [(3 * 4096, 8192), (9 * 4096, 4096)]
    with_cache.close()


def test_a_batch_brings_the_chunks_behind_along(tmp_path):
    blob = MadeBlob(chunks([4096] * 100), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 160 << 10)
    read_spans(with_cache, [blob.span(30)])
    assert backend.data_requests(blob) == [(30 * 4096, 160 << 10)]
    read_spans(with_cache, blob.spans()[30:70])
    assert len(backend.data_requests(blob)) == 1
    # what is here already is trimmed from the end of the next one
    read_spans(with_cache, [blob.span(0)])
    assert backend.data_requests(blob)[1] == (0, 30 * 4096)
    with_cache.close()


def test_v5_brings_along_what_the_bootstrap_says_follows(tmp_path):
    blob = MadeBlob(chunks([4096] * 10), 5, Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(2)], blob.spans()[3:6]) == blob.chunks[2]
    assert backend.data_requests(blob) == [(8192, 16384)]
    with_cache.close()


def test_chunks_that_shrink_a_lot_do_not_bring_everything_along(tmp_path):
    blob = MadeBlob([bytes(1 << 20)] * 30)
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    read_spans(with_cache, [blob.span(0)])
    assert with_cache.snapshot()["kept_bytes"] <= 6 << 20  # four batches, and what is read
    with_cache.close()


def windows(folder, *needed: int) -> list[tuple[int, int]]:
    """`(first, count)` of the chunks asked for when of 128 *needed* are read; a batch is 32."""
    blob = MadeBlob(chunks([4096] * 128), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, folder, 128 << 10)
    for index in needed:
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    with_cache.close()
    return [(offset // 4096, size // 4096) for offset, size in backend.data_requests(blob)]


def test_what_would_be_left_of_a_gap_comes_along(tmp_path):
    # Half a batch, 16 chunks, is the most that a request grows by for it.
    assert windows(tmp_path / "after", 80) == [(80, 48)]
    assert windows(tmp_path / "too many after", 79) == [(79, 32)]
    assert windows(tmp_path / "before", 0, 48) == [(0, 32), (32, 48)]
    assert windows(tmp_path / "too many before", 0, 49) == [(0, 32), (49, 32)]


def test_a_window_that_meets_what_is_here_grows_to_the_other_side(tmp_path):
    assert windows(tmp_path / "gap", 0, 64, 60) == [(0, 32), (64, 32), (32, 32)]
    assert windows(tmp_path / "end", 127) == [(96, 32)]
    # 32 to 58 stay missing: one batch is the most that 90 brings along.
    assert windows(tmp_path / "long", 0, 91, 90) == [(0, 32), (91, 37), (59, 32)]


def test_a_window_does_not_grow_over_what_is_here(tmp_path):
    assert windows(tmp_path, 20, 80, 60) == [(20, 32), (80, 48), (52, 28)]


def test_a_chunk_longer_than_a_request_brings_nothing_along(tmp_path):
    blob = MadeBlob(chunks([4096] * 40 + [300_000] + [4096] * 40), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 128 << 10)
    assert read_spans(with_cache, [blob.span(40)]) == blob.chunks[40]
    assert backend.data_requests(blob) == [(40 * 4096, 300_000)]
    with_cache.close()


def test_what_comes_along_is_bounded_when_chunks_shrink_well(tmp_path):
    blob = MadeBlob([bytes([index]) * 100_000 for index in range(60)])
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 128 << 10)
    assert read_spans(with_cache, [blob.span(50)]) == blob.chunks[50]
    # Four batches and a chunk, though the stored bytes of all of them are a few thousand.
    assert 2 <= with_cache.blobs[0].chunks.ready_count() <= 6
    with_cache.close()
