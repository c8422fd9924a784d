import base64
import threading
from functools import partial

import pytest

from nydusd.backend import retry, token
from nydusd.backend.registry import RegistryBackend
from nydusd.base.errors import BackendError, ConfigError, FailureKind
from nydusd.config.model import Connection, Registry
from tests.backend import reading
from tests.disclosure import secret
from tests.servers import faults
from tests.servers.loopback import LoopbackServer
from tests.servers.registry import USER, ScriptedRegistry

BLOB = bytes(range(256)) * 64
BLOB_PATH = "/v2/team/app/blobs/sha256:b1"
read = partial(reading.read, blob_id="b1", offset=100, size=1000)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.001)


@pytest.fixture
def registry_of():
    opened = []

    def start(**more):
        opened.append(ScriptedRegistry({"b1": BLOB, "b2": BLOB[::-1]}, **more))
        opened[-1].start()
        return opened[-1]

    yield start
    for server in opened:
        server.stop()


@pytest.fixture
def backend_of(close_later):
    def open_one(server, connection=None, **more):
        config = Registry(**server.config(**more))
        config = config._replace(connection=connection or Connection())
        return close_later(RegistryBackend(config))

    return open_one


@pytest.fixture
def store():
    with LoopbackServer({"/store/b1": BLOB, "/store/b2": BLOB[::-1]}) as server:
        yield server


def failure(backend, **more):
    with pytest.raises(BackendError) as caught:
        read(backend, **more)
    return caught.value


def test_a_registry_without_login(registry_of, backend_of):
    server = registry_of()

    assert read(backend_of(server)) == BLOB[100:1100]
    assert server.requests[0].target == BLOB_PATH
    assert "authorization" not in server.requests[0].headers


def test_a_password_is_sent_when_it_is_asked_for(registry_of, backend_of):
    server = registry_of(auth="basic")
    backend = backend_of(server, auth=USER)

    assert read(backend) == read(backend) == BLOB[100:1100]
    assert [seen.headers.get("authorization") for seen in server.requests] == [
        None,
        f"Basic {USER}",
        f"Basic {USER}",
    ]


def test_a_token_is_fetched_once_and_kept(registry_of, backend_of):
    server = registry_of(auth="bearer")
    backend = backend_of(server, auth=USER)

    for _ in range(3):
        assert read(backend) == BLOB[100:1100]

    (asked,) = server.tokens_asked()
    assert asked.method == "POST"
    assert asked.headers["authorization"] == f"Basic {USER}"
    assert [seen.headers.get("authorization") for seen in server.requests if seen != asked] == [
        None,
        *["Bearer UNSPOKEN-token-1"] * 3,
    ]


def test_a_token_server_without_post_is_asked_with_get_from_then_on(registry_of, backend_of):
    server = registry_of(auth="bearer", post=False)
    backend = backend_of(server)

    assert read(backend) == BLOB[100:1100]
    server.revoke()
    server_forgets(backend)
    assert read(backend) == BLOB[100:1100]

    assert [seen.method for seen in server.tokens_asked()] == ["POST", "GET", "GET"]
    assert "authorization" not in server.tokens_asked()[0].headers


def server_forgets(backend):
    """Make the backend's token older than what is believed to be refused on purpose."""
    authorizer = backend._authorizer
    authorizer._token = authorizer._token._replace(made=0.0)


def test_a_first_token_comes_from_the_configuration(registry_of, backend_of):
    server = registry_of(auth="bearer")
    server.tokens.add(secret("given"))
    backend = backend_of(server, registry_token=secret("given"))

    assert read(backend) == BLOB[100:1100]
    assert not server.tokens_asked()

    server.revoke()
    assert read(backend) == BLOB[100:1100]
    assert len(server.tokens_asked()) == 1


@pytest.mark.parametrize("forbids", [False, True])
def test_a_token_that_is_refused_is_replaced_within_the_read(registry_of, backend_of, forbids):
    server = registry_of(auth="bearer", forbids=forbids)
    backend = backend_of(server)
    read(backend)
    server.revoke()
    server_forgets(backend)

    assert read(backend) == BLOB[100:1100]
    assert len(server.tokens_asked()) == 2


def test_a_token_is_replaced_when_it_has_expired_without_a_refusal(registry_of, backend_of):
    server = registry_of(auth="bearer", life=1e-9)
    backend = backend_of(server)

    read(backend)
    read(backend)

    headers = [
        seen.headers.get("authorization") for seen in server.requests if seen.path != "/token"
    ]
    assert headers == [None, "Bearer UNSPOKEN-token-1", "Bearer UNSPOKEN-token-2"]


def test_a_token_is_renewed_in_the_background_before_it_expires(registry_of, backend_of):
    server = registry_of(auth="bearer")
    backend = backend_of(server)
    read(backend)
    authorizer = backend._authorizer
    authorizer._token = old = authorizer._token._replace(renew=0.0)
    renewed = threading.Event()
    server.script(lambda exchange: (renewed.wait(60), server.respond(exchange)), path="/token")

    read(backend)
    assert authorizer._token is old  # nobody has waited
    renewed.set()
    while authorizer._renewing:
        pass

    assert authorizer._token.header == "Bearer UNSPOKEN-token-2"


def test_a_renewal_that_fails_disturbs_nobody(registry_of, backend_of):
    server = registry_of(auth="bearer")
    backend = backend_of(server)
    read(backend)
    authorizer = backend._authorizer
    authorizer._token = authorizer._token._replace(renew=0.0)
    server.script(partial(faults.status, code=500), path="/token")

    for _ in range(3):
        assert read(backend) == BLOB[100:1100]
    while authorizer._renewing:
        pass

    assert len(server.tokens_asked()) == 2  # the next one after a pause


def read_side_by_side(backend, count):
    """What *count* readers get."""
    results = []
    threads = [threading.Thread(target=lambda: results.append(read(backend))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def test_many_readers_log_in_once(registry_of, backend_of):
    server = registry_of(auth="bearer")
    assert read_side_by_side(backend_of(server, auth=USER), 16) == [BLOB[100:1100]] * 16
    assert len(server.tokens_asked()) == 1
    assert server.count(path="/v2/") == 17


def test_many_readers_without_credentials_get_one_token(registry_of, backend_of):
    server = registry_of(auth="bearer")
    assert read_side_by_side(backend_of(server), 16) == [BLOB[100:1100]] * 16
    assert len(server.tokens_asked()) == 1
    assert server.count(path="/v2/") <= 32


def test_a_registry_in_the_clear_that_wants_no_login_is_asked_side_by_side(registry_of, backend_of):
    server = registry_of()
    backend = backend_of(server)
    together = threading.Barrier(4)

    def answer(exchange):
        together.wait(30)
        exchange.serve()

    server.script(answer, path="/v2/")
    assert read_side_by_side(backend, 4) == [BLOB[100:1100]] * 4
    assert server.count(path="/v2/") == 4


def test_wrong_credentials_are_told_and_do_not_storm_the_token_server(registry_of, backend_of):
    server = registry_of(auth="bearer")
    wrong = base64.b64encode(b"user:wrong").decode()
    backend = backend_of(server, auth=wrong)

    errors = [failure(backend) for _ in range(5)]

    assert {error.kind for error in errors} == {FailureKind.AUTH}
    assert "refuses the credentials" in str(errors[0])
    assert wrong not in str(errors[0])
    assert len(server.tokens_asked()) == 2  # POST, GET


def test_new_credentials_are_used_while_mounted(registry_of, backend_of):
    server = registry_of(auth="bearer")
    backend = backend_of(server, auth=base64.b64encode(b"user:old").decode())
    failure(backend)

    assert backend.change_setting("registry_auth", USER)

    assert read(backend) == BLOB[100:1100]
    other = base64.b64encode(b"other:word").decode()
    server.users = {other}
    server.revoke()
    assert backend.change_setting("registry_auth", other)
    assert read(backend) == BLOB[100:1100]
    assert server.tokens_asked()[-1].headers["authorization"] == f"Basic {other}"


def test_new_credentials_that_are_none_leave_the_old_ones(registry_of, backend_of):
    server = registry_of(auth="basic")
    backend = backend_of(server, auth=USER)

    with pytest.raises(ConfigError):
        backend.change_setting("registry_auth", "nonsense!")

    assert read(backend) == BLOB[100:1100]
    assert not backend.change_setting("color", "blue")


def test_no_credentials_for_a_registry_that_wants_some(registry_of, backend_of):
    assert "without credentials" in str(failure(backend_of(registry_of(auth="basic"))))


@pytest.mark.parametrize("auth", ["not base64!", base64.b64encode(b"nocolon").decode()])
def test_credentials_that_are_none_are_refused_at_once_and_not_shown(registry_of, backend_of, auth):
    with pytest.raises(ConfigError) as caught:
        backend_of(registry_of(), auth=auth)

    assert auth not in str(caught.value)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        b"{}",
        b'{"token": 5}',
        b'{"token": "a\\r\\nb"}',
        b'{"token": ""}',
        b"<html>",
    ],
)
def test_a_token_server_that_sends_no_token(registry_of, backend_of, reply):
    server = registry_of(auth="bearer")
    server.script(partial(faults.status, code=200, body=reply), path="/token")
    backend = backend_of(server)

    assert "token" in str(failure(backend))
    server.heal()
    backend._authorizer._refused = None
    assert read(backend) == BLOB[100:1100]


@pytest.mark.parametrize("life", [None, -1, "x", True, 1e300])
def test_a_token_whose_life_is_not_told(registry_of, backend_of, life):
    server = registry_of(auth="bearer", life=life)
    backend = backend_of(server)

    assert read(backend) == read(backend) == BLOB[100:1100]
    assert len(server.tokens_asked()) == 1


def test_a_token_server_in_trouble_is_tried_again(registry_of, backend_of):
    server = registry_of(auth="bearer", post=False)
    server.script(partial(faults.status, code=503), times=3, path="/token")

    assert read(backend_of(server)) == BLOB[100:1100]


# --- redirects


def redirected(registry, store, tail="", **more):
    registry.script(
        partial(faults.redirect, location=f"{store.url}/store/b1{tail}", **more), path=BLOB_PATH
    )


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_and_remembered(registry_of, backend_of, store, code):
    registry = registry_of()
    redirected(registry, store, "?sig=x", code=code)
    backend = backend_of(registry)

    assert read(backend) == read(backend, offset=100) == BLOB[100:1100]
    assert len(registry.requests) == 1
    assert [seen.target for seen in store.requests] == ["/store/b1?sig=x"] * 2
    assert store.requests[0].headers["range"] == "bytes=100-1099"


def test_another_host_is_not_told_who_we_are(registry_of, backend_of, store):
    registry = registry_of(auth="bearer")

    def send_away(exchange):
        if "authorization" not in exchange.request.headers:
            registry.respond(exchange)
        else:
            faults.redirect(exchange, f"{store.url}/store/b1")

    registry.script(send_away, path=BLOB_PATH)
    backend = backend_of(
        registry,
        Connection(headers=(("Cookie", "secret"), ("X-Trace", "on"))),
        auth=USER,
    )

    read(backend)
    read(backend)

    for seen in store.requests:
        assert "authorization" not in seen.headers
        assert "cookie" not in seen.headers
        assert seen.headers["x-trace"] == "on"


@pytest.mark.parametrize("code", [401, 403, 404])
def test_a_target_that_has_expired_is_asked_for_again(registry_of, backend_of, store, code, caplog):
    registry = registry_of()
    redirected(registry, store, "?sig=secret")
    backend = backend_of(registry)
    read(backend)
    store.script(partial(faults.status, code=code), times=1, path="/store")

    with caplog.at_level("INFO"):
        assert read(backend) == BLOB[100:1100]
    assert len(registry.requests) == 2
    assert "redirected link has expired" in caplog.text
    assert "secret" not in caplog.text


def test_a_target_that_fails_is_left_for_the_registry(registry_of, backend_of, store):
    registry = registry_of()
    redirected(registry, store)
    backend = backend_of(registry)
    read(backend)
    store.script(faults.reset, path="/store")
    registry.heal()

    assert read(backend) == BLOB[100:1100]
    assert registry.count(path=BLOB_PATH) == 2


def test_a_target_says_when_it_expires(registry_of, backend_of, store):
    registry = registry_of()
    redirected(registry, store, "?X-Amz-Date=20200101T000000Z&X-Amz-Expires=300000005")
    backend = backend_of(registry)
    read(backend)
    read(backend)
    assert len(registry.requests) == 1

    registry.heal()
    redirected(registry, store, "?Expires=1")  # long ago by our clock: it is used as it comes
    backend._redirects._targets.clear()
    read(backend)
    read(backend)
    assert len(registry.requests) == 2


def test_a_relative_redirect_stays_with_the_registry_and_its_login(registry_of, backend_of):
    registry = registry_of(auth="bearer")
    target = "/v2/team/app/blobs/sha256:b2"

    def move(exchange):
        if exchange.request.headers.get("authorization") != "Bearer UNSPOKEN-token-1":
            registry.respond(exchange)
        else:
            faults.redirect(exchange, target)

    registry.script(move, path=BLOB_PATH)

    assert read(backend_of(registry)) == BLOB[::-1][100:1100]
    assert registry.requests[-1].headers["authorization"] == "Bearer UNSPOKEN-token-1"


@pytest.mark.parametrize(
    "location", [BLOB_PATH, "ftp://host/blob", "file:///etc/passwd", "http://", "http://[", "//"]
)
def test_a_redirect_to_nowhere_is_told(registry_of, backend_of, location):
    registry = registry_of()
    registry.script(partial(faults.redirect, location=location), path=BLOB_PATH)

    assert failure(backend_of(registry)).kind is FailureKind.REDIRECT
    assert len(registry.requests) == 1


def test_redirects_without_end_end(registry_of, backend_of, store):
    registry = registry_of()
    redirected(registry, store)
    store.script(faults.redirect_growing, path="/store")

    assert "more than" in str(failure(backend_of(registry)))
    assert len(store.requests) <= 6


def test_scheme_and_host_of_a_redirect_are_replaced(registry_of, backend_of, store):
    registry = registry_of()
    registry.script(
        partial(faults.redirect, location=f"https://cdn.invalid:{store.port}/store/b1"),
        path=BLOB_PATH,
    )
    backend = backend_of(registry, blob_url_scheme="http", blob_redirected_host="127.0.0.1")

    assert read(backend) == BLOB[100:1100]


def test_a_port_of_the_redirected_host_is_not_used(registry_of, backend_of, store, caplog):
    registry = registry_of()
    registry.script(
        partial(faults.redirect, location=f"http://cdn.invalid:{store.port}/store/b1"),
        path=BLOB_PATH,
    )

    assert read(backend_of(registry, blob_redirected_host="127.0.0.1:1")) == BLOB[100:1100]
    assert "port is not used" in caplog.text


def test_the_size_of_a_redirected_blob_whose_store_refuses_head(registry_of, backend_of, store):
    registry = registry_of()
    redirected(registry, store)
    store.script(partial(faults.status, code=403), method="HEAD", path="/store")

    assert backend_of(registry).reader("b1").size() == len(BLOB)


# --- HTTP for HTTPS


def test_plain_http_behind_https_is_used_only_with_skip_verify(registry_of, backend_of, caplog):
    server = registry_of()

    error = failure(backend_of(server, scheme="https"))
    assert error.kind is FailureKind.TLS
    assert "does not speak TLS there: is scheme http meant?" in str(error)

    backend = backend_of(server, Connection(skip_verify=True), scheme="https")
    assert read(backend) == read(backend) == BLOB[100:1100]
    assert caplog.text.count("fallback to http") == 1


def test_a_registry_that_is_away_is_asked_again_by_the_next_read(registry_of, backend_of):
    server = registry_of()
    backend = backend_of(server, auth=USER)
    server.stop()
    assert failure(backend).kind in (FailureKind.UNREACHABLE, FailureKind.BROKEN)

    server.start()

    assert read(backend) == BLOB[100:1100]


def test_nothing_shows_the_credentials():
    assert USER not in repr(token.Credentials(USER))
