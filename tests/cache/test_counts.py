"""What is counted of reads that the fast side does not answer."""

import pytest

from nydusd.cache.span_reader import read_spans
from tests.cache.made import MadeBackend, MadeBlob, device


def blob_of(count):
    return MadeBlob([bytes([index]) * 70000 for index in range(count)], version=5)


@pytest.mark.parametrize("kept", [{"compressed": True}, {"validate": True}])
def test_a_checked_or_stored_cache_hits_on_the_fetching_side(tmp_path, kept):
    blob = blob_of(3)
    first = device(blob, MadeBackend(blob), tmp_path, **kept)
    read_spans(first, blob.spans())
    assert first.snapshot()["whole_hits"] == 0
    first.close()
    backend = MadeBackend(blob)
    again = device(blob, backend, tmp_path, **kept)
    read_spans(again, blob.spans())

    counted = again.snapshot()
    assert (counted["whole_hits"], counted["misses"], counted["hits"]) == (1, 1, 0)
    assert backend.requests == []
    again.close()


def test_a_plain_cache_hits_on_the_fast_side(tmp_path):
    blob = blob_of(3)
    cached = device(blob, MadeBackend(blob), tmp_path)
    read_spans(cached, blob.spans())
    read_spans(cached, blob.spans())

    counted = cached.snapshot()
    assert (counted["whole_hits"], counted["misses"], counted["hits"]) == (0, 1, 1)
    cached.close()


def test_what_came_from_the_backend_and_is_not_dropped_yet_is_told(tmp_path):
    blob = blob_of(9)
    backend = MadeBackend(blob)
    cached = device(blob, backend, tmp_path)
    seen = []

    class Look:
        def wait(self, _seconds):
            seen.append(cached.blobs[0].buffered)
            return True

    backend.gate = Look()
    read_spans(cached, [blob.span(0), blob.span(8)])

    assert seen == [0, blob.places[0][1]]
    assert cached.blobs[0].buffered == 0
    cached.close()


def test_what_cannot_be_had_is_not_held(tmp_path, caplog):
    blob = blob_of(9)
    backend = MadeBackend(blob)
    start, size, _ = blob.places[8]
    backend.broken = [(start, start + size)]
    cached = device(blob, backend, tmp_path)
    with pytest.raises(OSError, match="read of"):
        read_spans(cached, [blob.span(0), blob.span(8)])

    assert cached.blobs[0].buffered == 0
    cached.close()
