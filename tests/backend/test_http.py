import threading
from functools import partial

import pytest

from nydusd.backend import retry
from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.base.errors import BackendError, FailureKind
from nydusd.config.model import Connection, HttpProxy, Proxy
from tests.backend import reading
from tests.servers import faults
from tests.servers.loopback import LoopbackServer

BLOB = bytes(range(256)) * 1024
read = partial(reading.read, blob_id="b1", offset=100, size=1000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def server():
    with LoopbackServer({"/blobs/b1": BLOB}) as server:
        yield server


@pytest.fixture
def backend_of(close_later):
    def open_one(server, **connection):
        config = HttpProxy(server.url, "blobs", Connection(**connection))
        return close_later(HttpProxyBackend(config))

    return open_one


def failure(backend, **more):
    with pytest.raises(BackendError) as caught:
        read(backend, **more)
    return caught.value


def test_headers_of_the_configuration_go_with_every_request(server, backend_of):
    read(backend_of(server, headers=(("X-Cluster", "blue"),)))

    assert server.requests[0].headers["x-cluster"] == "blue"
    assert server.requests[0].headers["user-agent"].startswith("nydusd/")


@pytest.mark.parametrize(
    "fault",
    [
        partial(faults.status, code=500),
        partial(faults.status, code=503),
        partial(faults.status, code=429),
        faults.close,
        faults.reset,
        faults.endless_body,
        faults.other_range,
        faults.garbage,
    ],
)
def test_a_fault_that_passes_is_not_noticed(server, backend_of, fault):
    server.script(fault, times=3, path="/blobs")

    assert read(backend_of(server)) == BLOB[100:1100]
    assert len(server.requests) == 4


def test_a_fault_that_stays_is_an_error_after_the_last_retry(server, backend_of):
    server.script(
        partial(faults.status, code=500, body=b'{"errors":[{"code":"UNKNOWN"}]}'), path="/blobs"
    )
    backend = backend_of(server)

    error = failure(backend)

    assert (error.kind, error.status) == (FailureKind.STATUS, 500)
    assert "(UNKNOWN)" in str(error)
    assert "tried 4 times" in str(error)
    assert len(server.requests) == 4
    server.heal()
    assert read(backend) == BLOB[100:1100]


def test_retry_limit_is_the_number_of_retries(server, backend_of):
    server.script(partial(faults.status, code=500), path="/blobs")

    failure(backend_of(server, retry_limit=6))
    assert len(server.requests) == 7

    failure(backend_of(server, retry_limit=6), background=True)
    assert len(server.requests) == 9


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 416])
def test_what_will_not_change_is_not_asked_again(server, backend_of, code):
    server.script(partial(faults.status, code=code), path="/blobs")

    assert failure(backend_of(server)).status == code
    assert len(server.requests) == 1


def test_what_a_broken_body_has_brought_is_kept(server, backend_of):
    server.script(partial(faults.short_body, size=100), times=1, path="/blobs")
    server.script(partial(faults.close_in_body, size=400), times=1, path="/blobs")

    assert read(backend_of(server)) == BLOB[100:1100]
    assert [seen.headers["range"] for seen in server.requests] == [
        "bytes=100-1099",
        "bytes=200-1099",
        "bytes=600-1099",
    ]


def test_a_server_without_ranges_is_used_at_the_beginning_of_a_blob(server, backend_of):
    server.script(faults.whole_object, path="/blobs")

    assert read(backend_of(server)) == BLOB[100:1100]


def test_a_hanging_attempt_ends_in_time_and_the_next_one_reads(server, backend_of):
    server.script(faults.stall, times=1, path="/blobs")

    assert read(backend_of(server, timeout=1)) == BLOB[100:1100]


def test_a_server_is_left_alone_when_it_asks_for_it(server, backend_of, monkeypatch):
    monkeypatch.setattr(retry, "READ_SECONDS", 2.0)
    server.script(partial(faults.status, code=429, retry_after="30"), path="/blobs")
    backend = backend_of(server, timeout=1)

    assert failure(backend).retry_after == 30
    assert "longer pause" in str(failure(backend))
    assert len(server.requests) == 1


def test_closing_ends_a_pause(server, backend_of):
    server.script(partial(faults.status, code=503, retry_after="30"), path="/blobs")
    backend = backend_of(server)
    failures = []
    thread = threading.Thread(target=lambda: failures.append(failure(backend)))
    thread.start()
    while not server.requests:
        pass

    backend.close()
    thread.join(60)

    assert failures[0].status == 503 or failures[0].kind is FailureKind.CANCELLED


def test_the_size_is_asked_for_until_it_is_known(server, backend_of):
    server.script(partial(faults.status, code=500), times=3, path="/blobs")
    reader = backend_of(server).reader("b1")

    assert reader.size() == len(BLOB)
    assert reader.size() == len(BLOB)
    assert server.requests[-1].method == "HEAD"


def test_a_server_without_head_tells_the_size_with_one_byte(server, backend_of):
    server.script(partial(faults.status, code=403), method="HEAD", path="/blobs")

    assert backend_of(server).reader("b1").size() == len(BLOB)
    assert server.requests[-1].headers["range"] == "bytes=0-0"


def test_the_size_of_a_blob_that_is_not_there(server, backend_of):
    with pytest.raises(BackendError, match="404"):
        backend_of(server).reader("b2").size()
    with pytest.raises(BackendError, match="not a file name"):
        backend_of(server).reader("../b2")


def test_an_empty_range_asks_nobody(server, backend_of):
    assert read(backend_of(server), size=0) == b""
    assert not server.requests


def test_a_closed_backend_reads_no_more(server, backend_of):
    backend = backend_of(server)
    backend.close()
    backend.close()

    assert failure(backend).kind is FailureKind.CANCELLED


def test_the_log_says_how_a_backend_is_connected_without_passwords(server, backend_of, caplog):
    with caplog.at_level("INFO"):
        backend_of(server, proxy=Proxy(url="http://me:secret@proxy:1"), timeout=7)

    (line,) = (line for line in caplog.messages if line.startswith("backend config: "))
    assert 'url: "http://me:***@proxy:1"' in line
    assert "timeout: 7" in line
