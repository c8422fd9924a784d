"""Health checks by the real transfer thread, against real servers."""

import threading
from functools import partial

import pytest

from nydusd.backend.endpoints import Endpoints
from nydusd.backend.health import HealthChecks
from nydusd.backend.request import Tls
from nydusd.backend.transfer import Transfer
from nydusd.config.model import Connection, Mirror, Proxy
from tests.servers import faults
from tests.servers.loopback import LoopbackServer

WAIT_S = 60


@pytest.fixture
def transfer():
    engine = Transfer()
    yield engine
    engine.close()


@pytest.fixture
def server():
    with LoopbackServer({"/ping": b"pong"}) as running:
        yield running


@pytest.fixture
def checks(transfer):
    """A function that starts the checks of a connection."""
    started = []

    def start(connection):
        made = HealthChecks(Endpoints(connection), transfer, Tls())
        made.start()
        started.append(made)
        return made

    yield start
    for made in started:
        made.close()


def until(condition):
    pause = threading.Event()
    for _ in range(WAIT_S * 100):
        if condition():
            return
        pause.wait(0.01)
    raise TimeoutError


def health_threads():
    return [thread for thread in threading.enumerate() if thread.name == "health"]


def test_a_proxy_is_pinged_at_once_and_passed_by_when_it_is_sick(checks, server, caplog):
    server.script(faults.status)
    made = checks(Connection(proxy=Proxy("http://127.0.0.1:9", ping_url=f"{server.url}/ping")))
    until(lambda: [route.kind for route in made.endpoints.routes()] == ["origin"])

    assert "Detected proxy unhealthy when pinging proxy http://127.0.0.1:9: status 500" in (
        caplog.text
    )
    assert server.requests[0].headers.keys() <= {"host", "accept", "user-agent"}


def test_it_is_used_again_when_it_answers(checks, server, caplog):
    server.script(partial(faults.status, code=503), times=1)
    proxy = Proxy("http://127.0.0.1:9", ping_url=f"{server.url}/ping", check_interval=1)
    made = checks(Connection(proxy=proxy))
    until(lambda: len(made.endpoints.routes()) == 1)
    until(lambda: len(made.endpoints.routes()) == 2)

    assert len(server.requests) == 2


def test_a_mirror_that_is_left_out_is_checked_and_comes_back(checks, server, caplog):
    mirror = Mirror(server.url, failure_limit=1, health_check_interval=1, auth_through=True)
    made = checks(Connection(mirrors=(mirror,)))
    route = made.endpoints.routes()[0]
    assert not server.requests
    assert made.endpoints.failed(route)
    made.left_out(route, "status 500")
    until(lambda: made.endpoints.routes()[0].kind == "mirror")

    assert [request.path for request in server.requests] == ["/v2"]
    assert f"mirror {server.url} is left out: status 500" in caplog.text


def test_passwords_in_addresses_are_not_logged(checks, caplog):
    proxy = Proxy(
        "http://user:hidden@127.0.0.1:9", ping_url="http://user:hidden@127.0.0.1:9/ping?hidden=1"
    )
    made = checks(Connection(proxy=proxy))
    until(lambda: len(made.endpoints.routes()) == 1)

    assert "unhealthy" in caplog.text
    assert "hidden" not in caplog.text


def test_all_backends_share_one_thread_which_ends_with_the_last(transfer, server):
    proxy = Proxy("http://127.0.0.1:9", ping_url=f"{server.url}/ping")
    made = [HealthChecks(Endpoints(Connection(proxy=proxy)), transfer, Tls()) for _ in range(3)]
    for each in made:
        each.start()
    assert len(health_threads()) == 1
    for each in made:
        each.close()

    assert not health_threads()


def test_a_backend_without_mirrors_and_proxy_needs_no_thread(checks):
    checks(Connection())

    assert not health_threads()
