import threading

import pytest

from nydusd.backend import read_ahead as module
from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.backend.read_ahead import read_ahead
from nydusd.base.errors import BackendError
from nydusd.config.model import Connection, HttpProxy
from tests.servers.loopback import LoopbackServer

BLOB = bytes(range(251)) * 1000


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE_BYTES", 10_000)


def test_a_blob_comes_whole_in_ranges_that_follow_each_other():
    with LoopbackServer({"/blobs/b1": BLOB}) as server:
        backend = HttpProxyBackend(HttpProxy(server.url, "blobs", Connection()))
        streamed = b"".join(bytes(piece) for piece in backend.reader("b1").stream(777))
        backend.close()
        ranges = sorted(
            request.headers["range"] for request in server.requests if request.method == "GET"
        )
    assert streamed == BLOB[777:]
    assert len(ranges) == -(-(len(BLOB) - 777) // 10_000)


def test_the_next_range_is_asked_for_while_one_is_used():
    begun = []
    second = threading.Event()

    def read_into(buffer, offset, *, background):
        assert background
        begun.append(offset)
        if offset == 10_000:
            second.set()

    pieces = read_ahead(read_into, 0, 100_000)
    assert len(next(pieces)) == 10_000
    assert second.wait(60)
    assert max(begun) <= 30_000
    pieces.close()


def test_a_range_that_cannot_be_had_ends_the_stream():
    def read_into(buffer, offset, *, background):
        if offset == 20_000:
            raise BackendError("no bytes there")

    pieces = read_ahead(read_into, 0, 100_000)
    assert [len(next(pieces)) for _ in range(2)] == [10_000, 10_000]
    with pytest.raises(BackendError):
        next(pieces)


def test_nothing_is_asked_for_past_the_end():
    assert list(read_ahead(lambda buffer, offset, *, background: None, 50, 50)) == []
