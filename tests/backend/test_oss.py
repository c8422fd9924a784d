"""The OSS backend against a server that checks signatures as the service describes them."""

from functools import partial

import pytest

from nydusd.backend.oss import OssBackend
from nydusd.base.errors import BackendError
from nydusd.config.model import Connection, Mirror
from tests.backend.reading import read
from tests.disclosure import MARK, secret
from tests.servers import faults
from tests.servers.loopback import LoopbackServer
from tests.servers.oss import OssServer

DATA = bytes(range(256)) * 100
BLOB = "cb47b18f5a0d7ed7b17c220f1cce170136bc0d32df0d7f2f3b3767dd756f514b"
KEY_ID, SECRET = secret("key-id"), secret("key")


@pytest.fixture
def server():
    with OssServer("bkt", KEY_ID, SECRET) as running:
        running.objects[f"/pre/{BLOB}"] = DATA
        yield running


@pytest.fixture
def backend(server, open_bucket):
    """A function that opens the bucket, with changes to the configuration."""
    return partial(
        open_bucket,
        OssBackend,
        endpoint=f"localhost:{server.port}",
        access_key_id=KEY_ID,
        access_key_secret=SECRET,
    )


def test_a_signed_request_gets_the_range(backend, server):
    assert read(backend(), BLOB) == DATA[1000:1500]
    (request,) = server.requests
    assert request.headers["range"] == "bytes=1000-1499"
    assert request.headers["host"] == f"bkt.localhost:{server.port}"


def test_the_size_is_asked_for_with_a_signed_head(backend, server):
    assert backend().reader(BLOB).size() == len(DATA)
    assert [request.method for request in server.requests] == ["HEAD"]


def test_a_wrong_secret_is_told_in_the_service_s_words_and_not_shown(backend):
    with pytest.raises(BackendError, match=r"status 403 \(SignatureDoesNotMatch\)") as caught:
        read(backend(access_key_secret=secret("wrong")), BLOB)

    assert MARK not in str(caught.value)


def test_without_keys_requests_are_not_signed(backend, server):
    with pytest.raises(BackendError, match="403"):
        read(backend(access_key_id="", access_key_secret=""), BLOB)

    assert "authorization" not in server.requests[0].headers


def test_each_try_is_signed_for_its_own_time(backend, server):
    server.script(faults.status, times=1)
    assert read(backend(), BLOB) == DATA[1000:1500]

    assert len(server.requests) == 2
    assert all(request.headers["date"].endswith("GMT") for request in server.requests)


def test_a_name_with_odd_characters_is_found(backend, server):
    server.objects["/pre%20%2B/a%25b"] = DATA

    assert read(backend(object_prefix="pre +/"), "a%b") == DATA[1000:1500]


def test_a_mirror_gets_the_signed_request_too(backend, server):
    with LoopbackServer({f"/pre/{BLOB}": DATA}) as mirror:
        opened = backend(connection=Connection(mirrors=(Mirror(mirror.url),)))

        assert read(opened, BLOB) == DATA[1000:1500]
        assert mirror.requests[0].headers["authorization"].startswith(f"OSS {KEY_ID}:")

    assert not server.requests
