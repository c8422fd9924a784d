"""A registry with a login behind mirrors or a P2P proxy."""

from contextlib import ExitStack
from functools import partial

import pytest

from nydusd.backend import token
from nydusd.backend.registry import RegistryBackend
from nydusd.config.model import Connection, Mirror, Proxy, Registry
from tests.backend import reading
from tests.disclosure import secret
from tests.servers import faults
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.loopback import LoopbackServer
from tests.servers.registry import REPO, USER, ScriptedRegistry

DATA = bytes(range(256)) * 100
PATH = f"/v2/{REPO}/blobs/sha256:b1"
read = partial(reading.read, blob_id="b1", offset=100, size=1000)


@pytest.fixture
def stack():
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def mirror(stack):
    return stack.enter_context(LoopbackServer({PATH: DATA}))


def registry_of(stack, auth="bearer"):
    return stack.enter_context(ScriptedRegistry({"b1": DATA}, auth=auth))


def backend_of(stack, server, **connection):
    config = Registry(**server.config(auth=USER), connection=Connection(**connection))
    backend = RegistryBackend(config)
    stack.callback(backend.close)
    return backend


def test_the_login_is_the_registry_s_and_the_data_the_mirror_s(stack, mirror):
    server = registry_of(stack)
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url),))
    for _ in range(3):
        assert read(backend) == DATA[100:1100]

    assert server.count(path="/v2/") == 1  # the challenge
    sent = [each.headers.get("authorization") for each in mirror.requests]
    assert sent == ["Bearer UNSPOKEN-token-1"] * 3


def test_a_mirror_that_passes_authentication_through_sees_the_first_request(stack, mirror):
    server = registry_of(stack)
    read(backend_of(stack, server, mirrors=(Mirror(mirror.url, auth_through=True),)))

    assert "authorization" not in mirror.requests[0].headers
    assert not server.requests


def test_a_registry_without_login_is_asked_first_and_its_mirrors_then(stack, mirror):
    server = registry_of(stack, auth="")
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url),))
    for _ in range(3):
        read(backend)

    assert server.count(path="/v2/") == 1
    assert len(mirror.requests) == 2


def test_a_token_that_a_mirror_refuses_goes_to_the_registry(stack, mirror):
    server = registry_of(stack)
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url),))
    evil = 'Bearer realm="http://127.0.0.1:9/token",service="s"'
    mirror.script(lambda exchange: exchange.answer(401, WWW_Authenticate=evil))

    assert read(backend) == DATA[100:1100]
    assert len(server.tokens_asked()) == 1


def test_a_token_that_has_expired_everywhere_is_replaced_within_the_read(
    stack, mirror, monkeypatch
):
    monkeypatch.setattr(token, "REFUSED_SECONDS", 0.0)  # the token is new, and yet it may be bad
    server = registry_of(stack)
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url),))
    read(backend)
    server.revoke()
    mirror.script(lambda exchange: exchange.answer(401), times=1)

    assert read(backend) == DATA[100:1100]
    assert mirror.requests[-1].headers["authorization"] == "Bearer UNSPOKEN-token-2"


def test_where_a_mirror_redirects_to_is_asked_without_credentials_and_mirrors(stack, mirror):
    server = registry_of(stack)
    store = stack.enter_context(LoopbackServer({"/store/b1": DATA}))
    mirror.script(lambda exchange: faults.redirect(exchange, f"{store.url}/store/b1"))
    headers = (("X-Mirror-Secret", secret("mirror")),)
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url, headers=headers),))
    for _ in range(2):
        assert read(backend) == DATA[100:1100]

    assert len(store.requests) == 2
    assert len(mirror.requests) == 1
    assert not {"authorization", "x-mirror-secret"} & store.requests[0].headers.keys()


def test_a_dead_mirror_costs_no_read(stack, mirror, caplog):
    server = registry_of(stack)
    backend = backend_of(stack, server, mirrors=(Mirror(mirror.url, failure_limit=2),))
    read(backend)
    mirror.stop()
    for _ in range(4):
        assert read(backend) == DATA[100:1100]

    assert caplog.text.count("is left out") == 1


def test_data_goes_through_the_proxy_and_the_login_does_not(stack):
    server = registry_of(stack)
    proxy = stack.enter_context(ForwardProxy())
    backend = backend_of(stack, server, proxy=Proxy(proxy.url))

    assert read(backend) == DATA[100:1100]
    assert {request.path for request in proxy.requests} == {PATH}
    assert len(server.tokens_asked()) == 1


def test_where_a_registry_redirects_to_is_asked_through_the_proxy_too(stack):
    server = registry_of(stack, auth="")
    store = stack.enter_context(LoopbackServer({"/store/b1": DATA}))
    proxy = stack.enter_context(ForwardProxy())
    server.script(partial(faults.redirect, location=f"{store.url}/store/b1"), path=PATH)
    backend = backend_of(stack, server, proxy=Proxy(proxy.url))

    assert read(backend) == DATA[100:1100]
    assert [request.target for request in proxy.requests][-1] == f"{store.url}/store/b1"
