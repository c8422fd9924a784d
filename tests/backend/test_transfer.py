import threading
from functools import partial

import pytest

from nydusd.backend.request import Request
from nydusd.backend.transfer import (
    HOST_CONNECTIONS,
    Transfer,
    acquire_transfer,
    release_transfer,
)
from nydusd.base.errors import BackendError, FailureKind
from tests.servers import faults
from tests.servers.loopback import Gone, LoopbackServer

BLOB = bytes(range(256)) * 8192  # 2 MiB


@pytest.fixture
def server():
    with LoopbackServer({"/blob": BLOB}) as server:
        yield server


@pytest.fixture
def transfer():
    transfer = Transfer()
    yield transfer
    transfer.close()


def ask(server, size=1000, offset=300, **more):
    return Request(
        f"{server.url}/blob",
        buffer=bytearray(size),
        offset=offset,
        **{"timeout": 10, "connect_timeout": 10, **more},
    )


def failure(transfer, request):
    with pytest.raises(BackendError) as caught:
        transfer.perform(request)
    return caught.value


def test_a_range_lands_in_its_buffer(server, transfer):
    request = ask(server)

    response = transfer.perform(request)

    assert (response.status, response.received) == (206, 1000)
    assert request.buffer == BLOB[300:1300]
    assert server.requests[0].headers["range"] == "bytes=300-1299"


def test_requests_one_after_another_share_a_connection(server, transfer):
    for offset in range(5):
        transfer.perform(ask(server, offset=offset))

    assert {seen.connection for seen in server.requests} == {0}


def test_many_threads_get_each_their_own_bytes(server, transfer):
    wrong = []

    def read(number):
        for turn in range(5):
            request = ask(server, size=50_000, offset=number * 1000 + turn)
            transfer.perform(request)
            if request.buffer != BLOB[request.offset : request.offset + 50_000]:
                wrong.append(request)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert not wrong
    assert len(server.requests) == 160


def test_an_error_status_is_a_response_with_the_beginning_of_its_text(server, transfer):
    server.script(
        partial(faults.status, code=503, retry_after="7", body=b"busy" * 5000), path="/blob"
    )

    response = transfer.perform(ask(server))

    assert response.status == 503
    assert response.headers["retry-after"] == "7"
    assert response.body.startswith(b"busy")
    assert len(response.body) <= 4096


def test_an_error_status_stands_though_its_text_breaks_off(server, transfer):
    def act(exchange):
        exchange.answer(416, b"no", Content_Length="2000000")
        raise Gone

    server.script(act, path="/blob")

    assert transfer.perform(ask(server)).status == 416


@pytest.mark.parametrize(
    ("action", "kind", "received"),
    [
        (partial(faults.close_in_body, size=100), FailureKind.SHORT, 100),
        (partial(faults.short_body, size=100), FailureKind.SHORT, 100),
        (partial(faults.long_body, extra=b"x"), FailureKind.LONG, 0),
        (faults.other_range, FailureKind.RANGE, 0),
        (faults.whole_object, FailureKind.RANGE, 0),
        (faults.close, FailureKind.BROKEN, 0),
        (faults.reset, FailureKind.BROKEN, 0),
        (partial(faults.garbage, data=b"SSH-2.0-OpenSSH\r\n"), FailureKind.BROKEN, 0),
        (faults.garbled_content_range, FailureKind.RANGE, 0),
        (faults.no_content, FailureKind.RANGE, 0),
        (faults.compressed, FailureKind.RANGE, 0),
    ],
)
def test_a_body_that_is_not_the_range_is_an_error(server, transfer, action, kind, received):
    server.script(action, path="/blob")
    request = ask(server)

    error = failure(transfer, request)

    assert (error.kind, error.received) == (kind, received)
    assert request.buffer[:received] == BLOB[300 : 300 + received]
    server.heal()
    assert transfer.perform(request).received == 1000


def test_a_200_is_used_as_far_as_it_may_be_skipped(server, transfer):
    server.script(faults.whole_object, path="/blob")
    request = ask(server, skip_max=300)

    assert transfer.perform(request).received == 1000
    assert request.buffer == BLOB[300:1300]
    assert failure(transfer, ask(server, skip_max=299)).kind is FailureKind.RANGE


def test_a_server_that_hangs_or_trickles_meets_the_deadline(server, transfer):
    server.script(faults.stall, times=1, path="/blob")
    assert failure(transfer, ask(server, timeout=0.2)).kind is FailureKind.TIMEOUT

    server.script(partial(faults.trickle, pause=0.05), times=1, path="/blob")
    assert failure(transfer, ask(server, timeout=0.3)).kind is FailureKind.TIMEOUT


def test_nobody_there_is_unreachable(transfer):
    with LoopbackServer() as server:
        pass

    assert failure(transfer, ask(server)).kind is FailureKind.UNREACHABLE


def test_a_cancelled_call_gives_the_buffer_back_at_once(server, transfer):
    server.script(faults.stall, path="/blob")
    request = ask(server)
    call = transfer.submit(request)

    call.cancel()

    request.buffer.clear()  # not possible while somebody may write there
    with pytest.raises(BackendError) as caught:
        call.result()
    assert caught.value.kind is FailureKind.CANCELLED


def test_who_does_not_wait_is_called(server, transfer):
    done = threading.Event()

    call = transfer.submit(ask(server), on_done=lambda _: done.set())

    assert done.wait(60)
    assert call.result().status == 206


def test_closing_ends_what_is_under_way_and_refuses_what_comes(server, transfer):
    server.script(faults.stall, path="/blob")
    call = transfer.submit(ask(server))

    transfer.close()

    assert call.error.kind is FailureKind.CANCELLED
    assert failure(transfer, ask(server)).kind is FailureKind.CANCELLED


def test_a_body_in_memory_is_bounded(server, transfer):
    response = transfer.perform(Request(f"{server.url}/blob", size=len(BLOB), timeout=10))
    assert response.body == BLOB

    error = failure(transfer, Request(f"{server.url}/blob", size=len(BLOB) - 1, timeout=10))
    assert error.kind is FailureKind.LONG


def test_what_cannot_be_a_request_is_told_without_its_headers(server, transfer):
    error = failure(transfer, ask(server, headers=(("authorization", "secret\r\nx: y"),)))

    assert error.kind is FailureKind.CONFIG
    assert "secret" not in str(error)


def test_urls_are_shown_without_query_and_password():
    request = Request("http://me:secret@host/a/b?sig=secret#x", offset=5, size=10)

    assert repr(request) == "<GET http://host/a/b bytes 5-14>"


def test_head_and_post_go_by_the_same_way(server, transfer):
    response = transfer.perform(Request(f"{server.url}/blob", "HEAD", timeout=10))
    assert response.headers["content-length"] == str(len(BLOB))

    server.script(partial(faults.status, code=200, body=b"{}"), path="/token")
    transfer.perform(Request(f"{server.url}/token", "POST", body=b"a=b", timeout=10))
    assert (server.requests[-1].method, server.requests[-1].body) == ("POST", b"a=b")


def test_a_unix_socket(transfer, tmp_path):
    with LoopbackServer({"/": BLOB}, unix=tmp_path / "s") as server:
        request = Request(
            "http://localhost/", buffer=bytearray(10), offset=1, unix_socket=str(tmp_path / "s")
        )
        transfer.perform(request)

    assert request.buffer == BLOB[1:11]
    assert server.requests[0].target == "/"


def test_the_engine_is_shared_and_ends_with_its_last_user():
    first, second = acquire_transfer(), acquire_transfer()
    assert first is second

    release_transfer()
    call = first.submit(Request("http://127.0.0.1:1/", timeout=1))
    assert call.wait(60)
    release_transfer()

    with pytest.raises(BackendError, match="closed"):
        first.perform(Request("http://127.0.0.1:1/"))


def test_an_engine_that_stumbles_goes_on(server, transfer, monkeypatch, caplog):
    server.script(faults.stall, times=1, path="/blob")
    hanging = transfer.submit(ask(server))
    while not server.requests:
        assert not hanging.done

    def stumble(*_):
        monkeypatch.undo()
        raise RuntimeError("by a test")

    monkeypatch.setattr(transfer, "_begin", stumble)
    with pytest.raises(BackendError):
        transfer.perform(ask(server))
    with pytest.raises(BackendError):
        hanging.result()

    assert transfer.perform(ask(server)).received == 1000
    assert "starts over" in caplog.text


def test_cancelling_beside_the_end_of_a_call_has_one_outcome(server, transfer):
    for _ in range(300):
        request = ask(server, size=10)
        call = transfer.submit(request)
        while len(server.requests) % 2 and not call.done:
            pass
        call.cancel()
        assert (call.response is None) != (call.error is None)
        request.buffer.clear()
    assert transfer.perform(ask(server)).received == 1000


def test_one_host_has_no_more_connections_than_are_allowed(server, transfer):
    go = threading.Event()
    server.script(lambda exchange: (go.wait(60), exchange.serve()), path="/blob")
    calls = [transfer.submit(ask(server, timeout=120)) for _ in range(HOST_CONNECTIONS + 20)]
    server.wait_for(HOST_CONNECTIONS)
    with LoopbackServer({"/blob": BLOB}) as other:
        transfer.perform(ask(other))  # what was handed over before it was looked at before it
    counts = server.connections, len(server.requests)
    go.set()

    assert counts == (HOST_CONNECTIONS, HOST_CONNECTIONS)
    assert [call.result().received for call in calls] == [1000] * len(calls)
