import threading

import pytest

from nydusd.backend import retry
from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.base.errors import BackendError, FailureKind
from nydusd.config.model import Connection, HttpProxy, Proxy
from tests.servers import scripted
from tests.servers.scripted import ScriptedServer

BLOB = bytes(range(256)) * 1024


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def server():
    with ScriptedServer({"/blobs/b1": BLOB}) as server:
        yield server


@pytest.fixture
def backend_of():
    opened = []

    def open_one(server, **connection):
        opened.append(HttpProxyBackend(HttpProxy(server.url, "blobs", Connection(**connection))))
        return opened[-1]

    yield open_one
    for backend in opened:
        backend.close()


def read(backend, size=1000, offset=100, **more):
    buffer = bytearray(size)
    backend.reader("b1").read_into(buffer, offset, **more)
    return bytes(buffer)


def failure(backend, **more):
    with pytest.raises(BackendError) as caught:
        read(backend, **more)
    return caught.value


def test_headers_of_the_configuration_go_with_every_request(server, backend_of):
    read(backend_of(server, headers=(("X-Cluster", "blue"),)))

    assert server.seen[0].headers["x-cluster"] == "blue"
    assert server.seen[0].headers["user-agent"].startswith("nydusd/")


@pytest.mark.parametrize(
    "fault",
    [
        scripted.status(500),
        scripted.status(503),
        scripted.status(429),
        scripted.hang_up,
        scripted.reset,
        scripted.long_body(10),
        scripted.wrong_range(5),
        scripted.raw(b"nonsense\r\n\r\n"),
    ],
)
def test_a_fault_that_passes_is_not_noticed(server, backend_of, fault):
    server.script("/blobs", fault, times=3)

    assert read(backend_of(server)) == BLOB[100:1100]
    assert len(server.seen) == 4


def test_a_fault_that_stays_is_an_error_after_the_last_retry(server, backend_of):
    server.script("/blobs", scripted.status(500, body=b'{"errors":[{"code":"UNKNOWN"}]}'))
    backend = backend_of(server)

    error = failure(backend)

    assert (error.kind, error.status) == (FailureKind.STATUS, 500)
    assert "(UNKNOWN)" in str(error)
    assert "tried 4 times" in str(error)
    assert len(server.seen) == 4
    server.unscript()
    assert read(backend) == BLOB[100:1100]


def test_retry_limit_is_the_number_of_retries(server, backend_of):
    server.script("/blobs", scripted.status(500))

    failure(backend_of(server, retry_limit=6))
    assert len(server.seen) == 7

    failure(backend_of(server, retry_limit=6), background=True)
    assert len(server.seen) == 9


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 416])
def test_what_will_not_change_is_not_asked_again(server, backend_of, code):
    server.script("/blobs", scripted.status(code))

    assert failure(backend_of(server)).status == code
    assert len(server.seen) == 1


def test_what_a_broken_body_has_brought_is_kept(server, backend_of):
    server.script("/blobs", scripted.short_body(400), times=1)
    server.script("/blobs", scripted.short_range(100), times=1)

    assert read(backend_of(server)) == BLOB[100:1100]
    assert [seen.headers["range"] for seen in server.seen] == [
        "bytes=100-1099",
        "bytes=200-1099",
        "bytes=600-1099",
    ]


def test_a_server_without_ranges_is_used_at_the_beginning_of_a_blob(server, backend_of):
    server.script("/blobs", scripted.whole_blob)

    assert read(backend_of(server)) == BLOB[100:1100]


def test_a_hanging_attempt_ends_in_time_and_the_next_one_reads(server, backend_of):
    server.script("/blobs", scripted.hang, times=1)

    assert read(backend_of(server, timeout=1)) == BLOB[100:1100]


def test_a_server_is_left_alone_when_it_asks_for_it(server, backend_of, monkeypatch):
    monkeypatch.setattr(retry, "READ_SECONDS", 2.0)
    server.script("/blobs", scripted.status(429, {"Retry-After": "30"}))
    backend = backend_of(server, timeout=1)

    assert failure(backend).retry_after == 30
    assert "longer pause" in str(failure(backend))
    assert len(server.seen) == 1


def test_closing_ends_a_pause(server, backend_of):
    server.script("/blobs", scripted.status(503, {"Retry-After": "30"}))
    backend = backend_of(server)
    failures = []
    thread = threading.Thread(target=lambda: failures.append(failure(backend)))
    thread.start()
    while not server.seen:
        pass

    backend.close()
    thread.join(60)

    assert failures[0].status == 503 or failures[0].kind is FailureKind.CANCELLED


def test_the_size_is_asked_for_until_it_is_known(server, backend_of):
    server.script("/blobs", scripted.status(500), times=3)
    reader = backend_of(server).reader("b1")

    assert reader.size() == len(BLOB)
    assert reader.size() == len(BLOB)
    assert server.seen[-1].method == "HEAD"


def test_a_server_without_head_tells_the_size_with_one_byte(server, backend_of):
    server.script("/blobs", scripted.status(403), method="HEAD")

    assert backend_of(server).reader("b1").size() == len(BLOB)
    assert server.seen[-1].headers["range"] == "bytes=0-0"


def test_the_size_of_a_blob_that_is_not_there(server, backend_of):
    with pytest.raises(BackendError, match="404"):
        backend_of(server).reader("b2").size()
    with pytest.raises(BackendError, match="not a file name"):
        backend_of(server).reader("../b2")


def test_an_empty_range_asks_nobody(server, backend_of):
    assert read(backend_of(server), size=0) == b""
    assert not server.seen


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
