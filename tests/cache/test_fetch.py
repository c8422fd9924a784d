"""One fetch: failing ranges, corrupt chunks, its end."""

import errno
import logging
import threading

import pytest

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, device


@pytest.mark.parametrize("version", [5, 6])
def test_a_corrupt_chunk_is_eio_for_its_reader_alone_and_logged_once(tmp_path, version, caplog):
    blob = MadeBlob(chunks([4096] * 4), version, Compressor.NONE)
    blob.data[2 * 4096 + 7] ^= 1
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    with caplog.at_level(logging.WARNING, "nydusd"):
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output error") as caught:
                read_spans(with_cache, [blob.span(2)])
            assert caught.value.errno == errno.EIO
    assert [record.getMessage() for record in caplog.records] == [
        f"blob {blob.blob_id}: chunk 2: its CRC-32C is not the promised one"
    ]
    assert read_spans(with_cache, [blob.span(1), blob.span(3)]) == blob.chunks[1] + blob.chunks[3]
    assert with_cache.blobs[0].chunks.try_claim(2)  # given up
    with_cache.close()


def test_a_failed_range_is_tried_again_with_what_is_needed(tmp_path):
    blob = MadeBlob(chunks([4096] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    backend.broken = [(3 * 4096, 4 * 4096)]
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(1)]) == blob.chunks[1]
    assert backend.data_requests(blob) == [(0, 10 * 4096), (4096, 4096)]
    assert with_cache.blobs[0].chunks.try_claim(2)  # what came along is given up
    with_cache.close()


def test_a_fetch_that_outlives_its_device_closes_the_files_when_it_ends(tmp_path):
    blob = MadeBlob(chunks([5000] * 3), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    cached = with_cache.blobs[0]
    cached.load_description()
    backend.started.clear()
    backend.gate.clear()
    results = []
    reader = threading.Thread(target=lambda: results.append(read_spans(with_cache, blob.spans())))
    reader.start()
    assert backend.started.wait(60)
    cached.close()
    assert backend.closed == 0
    backend.gate.set()
    reader.join()
    assert results == [blob.content]
    assert backend.closed == 1
    kept = (tmp_path / f"{blob.blob_id}.blob.data").read_bytes()
    assert kept == blob.plain


def test_a_chunk_is_decoded_from_the_request_that_was_made_for_it(tmp_path):
    blob = MadeBlob(chunks([5000] * 4), 5, Compressor.NONE, with_crc=False)
    with_cache = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    cached = with_cache.blobs[0]
    cached.file.stop()
    assert cached.chunks.try_claim(1)  # or it would be in one request with the others
    # It begins between the first and the third, and ends after both.
    longer = blob.span(1)._replace(
        compressed_size=12000, uncompressed_size=12000, length=12000, uncompressed_offset=0
    )
    got = read_spans(with_cache, [blob.span(0), longer, blob.span(2)])
    assert got == blob.chunks[0] + bytes(blob.data[5000:17000]) + blob.chunks[2]
    cached.chunks.give_up(1)
    with_cache.close()
