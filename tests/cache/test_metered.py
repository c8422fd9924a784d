from functools import partial

import pytest

from nydusd.backend.interface import BlobReader
from nydusd.base.errors import BackendError
from nydusd.cache.metered import BackendMetrics, MeteredBackend, MeteredReader
from nydusd.config import model
from tests.servers import faults
from tests.servers.loopback import LoopbackServer


@pytest.fixture
def backend(tmp_path):
    (tmp_path / "blob").write_bytes(bytes(1000))
    errors = []
    config = model.Backend(type="localfs", localfs=model.LocalFs(dir=str(tmp_path)))
    return MeteredBackend(config, errors.append), errors


def test_a_read_is_counted_with_its_size(backend):
    metered, errors = backend
    reader = metered.reader("blob")
    reader.read_into(bytearray(1000), 0)
    reader.close()
    found = metered.metrics.snapshot()

    assert (found["read_count"], found["read_amount_total"], found["read_errors"]) == (1, 1000, 0)
    assert found["read_count_block_size_dist"] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert errors == []


def test_a_failed_read_is_counted_and_told(backend):
    metered, errors = backend
    reader = metered.reader("blob")
    with pytest.raises(BackendError):
        reader.read_into(bytearray(100), 950)
    reader.close()
    found = metered.metrics.snapshot()

    assert (found["read_count"], found["read_amount_total"], found["read_errors"]) == (1, 100, 1)
    assert len(errors) == 1
    assert "950" in errors[0] or "1000" in errors[0]


class Doubted(BlobReader):
    """A reader with another source for what is corrupt."""

    def __init__(self):
        self.told = []

    def size(self):
        return 0

    def read_into(self, buffer, offset, *, background=False):
        raise NotImplementedError

    def distrust(self, offset, size):
        self.told.append((offset, size))
        return True

    def close(self):
        pass


def test_what_is_corrupt_is_told_to_who_knows_other_sources():
    reader = Doubted()
    metered = MeteredReader(reader, "blob", BackendMetrics("registry"), print)

    assert metered.distrust(5, 7)
    assert reader.told == [(5, 7)]


@pytest.mark.parametrize(
    ("size", "seconds", "size_class", "latency_class"),
    [
        (1023, 0.001, 0, 0),
        (1024, 0.0021, 1, 1),
        (65536, 0.050, 4, 2),
        ((1 << 20) - 1, 2.0, 6, 6),
        (1 << 20, 2.001, 7, 7),
    ],
)
def test_classes_are_those_of_the_reference(size, seconds, size_class, latency_class):
    metrics = BackendMetrics("s3")
    metrics.record(size, seconds, False)
    found = metrics.snapshot()

    assert found["backend_type"] == "oss"
    assert found["read_count_block_size_dist"][size_class] == 1
    assert found["read_cumulative_latency_millis_dist"][latency_class] == 1
    assert found["read_latency_sizes_dist"][size_class][latency_class] == 1


def test_each_try_of_a_request_counts():
    with LoopbackServer({"/blob": bytes(5000)}) as server:
        config = model.Backend(type="http-proxy", http_proxy=model.HttpProxy(addr=server.url))
        errors = []
        metered = MeteredBackend(config, errors.append)
        server.script(partial(faults.close_in_body, size=1000), times=1, path="/blob")
        reader = metered.reader("blob")
        reader.read_into(bytearray(5000), 0)
        server.heal()
        server.script(partial(faults.status, code=404), path="/blob")
        with pytest.raises(BackendError):
            reader.read_into(bytearray(100), 0)
        reader.close()
        metered.close()
    found = metered.metrics.snapshot()

    assert len(errors) == 1  # what was tried again with success is no event
    assert found["read_errors"] == 2
    assert found["read_count"] == 3
    assert found["read_amount_total"] == 5000 + 4000 + 100
