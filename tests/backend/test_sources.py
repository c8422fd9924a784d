"""Whole reads of a backend by way of mirrors and a proxy."""

from functools import partial

import pytest

from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.base.errors import BackendError
from nydusd.config.model import Connection, HttpProxy, Mirror, Proxy
from tests.backend import reading
from tests.servers import faults
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.loopback import LoopbackServer

DATA = bytes(range(256)) * 100
BLOB = "0" * 64
read = partial(reading.read, blob_id=BLOB)


@pytest.fixture
def servers():
    """An origin and two mirrors."""
    running = [LoopbackServer({f"/{BLOB}": DATA}) for _ in range(3)]
    for server in running:
        server.start()
    yield running
    for server in running:
        server.stop()


@pytest.fixture
def backend(close_later):
    """A function that opens a backend at a server, with a connection."""

    def make(server, **connection):
        config = HttpProxy(server.url, connection=Connection(**connection))
        return close_later(HttpProxyBackend(config))

    return make


def test_reads_go_on_when_one_source_after_another_dies(backend, servers, caplog):
    origin, first, second = servers
    mirrors = (Mirror(first.url, failure_limit=1), Mirror(second.url, failure_limit=1))
    opened = backend(origin, mirrors=mirrors)
    for dying in (None, first, second):
        if dying:
            dying.stop()
        assert read(opened) == DATA[1000:1500]

    assert [len(server.requests) for server in servers] == [1, 1, 1]
    assert caplog.text.count("is left out") == 2


def test_all_sources_down_is_an_error_and_the_next_read_works_when_one_is_back(
    backend, servers, caplog
):
    origin, first, _ = servers
    opened = backend(origin, mirrors=(Mirror(first.url, failure_limit=1),), retry_limit=1)
    first.stop()
    origin.stop()
    with pytest.raises(BackendError, match="tried 2 times"):
        read(opened)
    first.start()

    assert read(opened) == DATA[1000:1500]


def test_every_source_is_sent_the_headers_of_the_environment(backend, servers):
    origin, first, second = servers
    first.script(faults.reset)
    opened = backend(
        origin,
        headers=(("X-Mine", "1"),),
        mirrors=(Mirror(first.url), Mirror(second.url, headers=(("X-Mirror", "2"),))),
    )
    read(opened)

    assert first.requests[0].headers["x-mine"] == "1"
    assert second.requests[0].headers["x-mine"] == "1"
    assert second.requests[0].headers["x-mirror"] == "2"
    assert "x-mirror" not in first.requests[0].headers


def test_a_second_reader_finds_the_range_at_the_p2p_proxy(backend, servers):
    origin = servers[0]
    with ForwardProxy() as proxy:
        for _ in range(2):
            assert read(backend(origin, proxy=Proxy(proxy.url))) == DATA[1000:1500]

        assert [request.target for request in proxy.requests] == [f"{origin.url}/{BLOB}"] * 2
        assert proxy.requests[0].headers["x-dragonfly-priority"] == "6"
    assert len(origin.requests) == 1


def test_prefetch_says_so_to_the_p2p_proxy(backend, servers):
    with ForwardProxy() as proxy:
        read(backend(servers[0], proxy=Proxy(proxy.url)), background=True)

        assert proxy.requests[0].headers["x-dragonfly-prefetch"] == "true"


def test_a_proxy_that_is_gone_costs_no_read(backend, servers, caplog):
    with ForwardProxy() as proxy:
        opened = backend(servers[0], proxy=Proxy(proxy.url))
    for _ in range(8):
        assert read(opened) == DATA[1000:1500]

    assert caplog.text.count("is left out") == 1


def test_without_fallback_a_proxy_that_is_gone_fails_the_read(backend, servers):
    with ForwardProxy() as proxy:
        opened = backend(servers[0], proxy=Proxy(proxy.url, fallback=False), retry_limit=1)
    with pytest.raises(BackendError, match="via http://127"):
        read(opened)

    assert not servers[0].requests


def test_a_blob_that_no_source_has_is_told_at_once(backend, servers):
    for server in servers:
        server.objects.clear()
    opened = backend(servers[0], mirrors=tuple(Mirror(server.url) for server in servers[1:]))

    with pytest.raises(BackendError, match="404"):
        read(opened)
    assert [len(server.requests) for server in servers] == [1, 1, 1]


def test_passwords_of_mirrors_and_proxies_are_in_no_error(backend, servers, caplog):
    netlocs = [server.url.replace("://", "://user:hidden@") for server in servers]
    for server in servers:
        server.script(partial(faults.status, code=403))
    opened = backend(servers[0], mirrors=tuple(Mirror(url) for url in netlocs[1:]))
    with pytest.raises(BackendError) as caught:
        read(opened)

    assert "hidden" not in str(caught.value) + caplog.text


def test_who_has_given_wrong_bytes_is_asked_last(backend, servers):
    origin, first, second = servers
    opened = backend(origin, mirrors=(Mirror(first.url), Mirror(second.url)))
    reader = opened.reader(BLOB)
    reader.read_into(bytearray(500), 1000)

    assert not reader.distrust(0, 1000)  # nobody has delivered that
    assert reader.distrust(1400, 10)
    reader.read_into(bytearray(500), 1000)
    assert [len(server.requests) for server in servers] == [0, 1, 1]


def test_with_one_source_there_is_nobody_else_to_ask(backend, servers):
    reader = backend(servers[0]).reader(BLOB)
    reader.read_into(bytearray(500), 1000)

    assert not reader.distrust(1000, 500)
