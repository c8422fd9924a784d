import pytest

from nydusd.base.errors import BackendError
from nydusd.cache.metered import BackendMetrics, MeteredReader
from tests.cache.made import MadeBackend, MadeBlob


@pytest.fixture
def metered():
    blob = MadeBlob([b"one" * 500, b"two" * 600])
    backend = MadeBackend(blob)
    told = []
    metrics = BackendMetrics("registry")
    return MeteredReader(backend.reader(blob.blob_id), metrics, told.append), backend, told, metrics


def test_reads_are_counted_and_handed_on(metered):
    reader, backend, told, metrics = metered

    reader.read_into(memoryview(bytearray(600)), 0, background=True)

    assert backend.background == 1
    counts = metrics.snapshot()
    assert (counts["read_count"], counts["read_amount_total"], told) == (1, 600, [])


def test_each_piece_of_a_stream_is_counted_and_its_end_is_told(metered):
    reader, backend, told, metrics = metered

    received = sum(len(piece) for piece in reader.stream(0))
    assert received == reader.size() == metrics.snapshot()["read_amount_total"]

    backend.broken.append((0, received))
    with pytest.raises(BackendError):
        list(reader.stream(0))
    assert metrics.snapshot()["read_errors"] > 0
    assert told
