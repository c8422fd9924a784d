import http.client
import ssl

import pytest

from tests.servers import faults
from tests.servers.certificates import Authority
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.loopback import LoopbackServer

DATA = bytes(range(256)) * 40


@pytest.fixture
def server():
    with LoopbackServer({"/blob": DATA}) as running:
        yield running


def ask(netloc, path="/blob", asked=(100, 299), method="GET", timeout=5):
    connection = http.client.HTTPConnection(netloc, timeout=timeout)
    try:
        headers = {"Range": f"bytes={asked[0]}-{asked[1]}"} if asked else {}
        connection.request(method, path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_sound_answer_has_the_range_that_was_asked_for(server):
    assert ask(server.netloc) == (206, DATA[100:300])
    assert ask(server.netloc, asked=None) == (200, DATA)
    assert ask(server.netloc, path="/none")[0] == 404
    assert ask(server.netloc, asked=(99999, 100000))[0] == 416
    assert server.count("GET", "/blob") == 3


def test_a_fault_is_played_as_often_as_it_was_told(server):
    server.script(faults.status, times=2)

    assert [ask(server.netloc)[0] for _ in range(3)] == [500, 500, 206]


def test_what_stalls_is_let_go_when_the_server_heals(server):
    server.script(faults.stall_in_body)
    with pytest.raises(TimeoutError):
        ask(server.netloc, timeout=0.2)
    server.heal()

    assert ask(server.netloc) == (206, DATA[100:300])


def test_it_listens_on_the_same_port_after_a_stop(server):
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(server.netloc)
    server.start()

    assert ask(server.netloc)[0] == 206


def test_it_speaks_tls_with_a_certificate_of_the_authority(tmp_path):
    authority = Authority(tmp_path)
    with LoopbackServer({"/blob": DATA}, tls=authority.context("localhost")) as server:
        context = ssl.create_default_context(cafile=str(authority.file))
        connection = http.client.HTTPSConnection("localhost", server.port, context=context)
        connection.request("GET", "/blob")

        assert connection.getresponse().read() == DATA
        connection.close()


def test_the_proxy_asks_the_origin_once_for_a_range(server):
    with ForwardProxy() as proxy:
        answers = [ask(proxy.netloc, path=f"{server.url}/blob") for _ in range(3)]

    assert answers == [(206, DATA[100:300])] * 3
    assert (proxy.hits, proxy.misses, len(server.requests)) == (2, 1, 1)
