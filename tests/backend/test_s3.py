"""The S3 backend against a real S3 from a package, which checks signatures."""

import hashlib
from functools import partial

import pytest

from nydusd.backend.s3 import DEFAULT_ENDPOINT, S3Backend
from nydusd.base.errors import BackendError
from nydusd.config.model import Connection, Mirror
from tests.backend.reading import read
from tests.disclosure import MARK, secret
from tests.servers.loopback import LoopbackServer
from tests.servers.s3 import REGION, S3Server

DATA = bytes(range(256)) * 100
BLOB = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(scope="module")
def server():
    with S3Server("bkt") as running:
        running.put(f"pre/{BLOB}", DATA)
        running.put("pre +/a%b c", DATA)
        yield running


@pytest.fixture
def backend(server, open_bucket):
    """A function that opens the bucket, with changes to the configuration."""
    return partial(
        open_bucket,
        S3Backend,
        endpoint=server.netloc,
        region=REGION,
        access_key_id=server.keys.key_id,
        access_key_secret=server.keys.secret,
    )


def test_a_signed_request_gets_the_range(backend):
    assert read(backend(), BLOB) == DATA[1000:1500]


def test_a_name_with_odd_characters_is_found(backend):
    assert read(backend(object_prefix="pre +/"), "a%b c") == DATA[1000:1500]


def test_the_size_is_asked_for_with_a_signed_head(backend):
    assert backend().reader(BLOB).size() == len(DATA)


def test_a_wrong_secret_is_told_in_the_service_s_words_and_not_shown(backend):
    with pytest.raises(BackendError, match=r"status 403 \(SignatureDoesNotMatch\)") as caught:
        read(backend(access_key_secret=secret("wrong")), BLOB)

    assert MARK not in str(caught.value)


def test_a_key_that_nobody_has_is_told(backend):
    with pytest.raises(BackendError, match=r"status 403 \(InvalidAccessKeyId\)"):
        read(backend(access_key_id=secret("nobody")), BLOB)


def test_a_blob_that_is_not_there_is_told(backend):
    with pytest.raises(BackendError, match=r"status 404 \(NoSuchKey\)"):
        read(backend(), "0" * 64)


def test_without_keys_requests_are_not_signed(backend):
    with LoopbackServer({f"/bkt/pre/{BLOB}": DATA}) as public:
        opened = backend(endpoint=public.netloc, access_key_id="", access_key_secret="")

        assert read(opened, BLOB) == DATA[1000:1500]
        assert not {"authorization", "x-amz-date"} & public.requests[0].headers.keys()


def test_a_mirror_gets_the_host_that_was_signed(backend, server):
    with LoopbackServer({f"/bkt/pre/{BLOB}": DATA}) as mirror:
        opened = backend(connection=Connection(mirrors=(Mirror(mirror.url),)))

        assert read(opened, BLOB) == DATA[1000:1500]
        assert mirror.requests[0].headers["host"] == server.netloc
        assert "SignedHeaders=host;" in mirror.requests[0].headers["authorization"]


def test_an_empty_endpoint_is_the_service_s_own(backend):
    opened = backend(endpoint="", scheme="https")

    assert opened.url(BLOB) == f"https://{DEFAULT_ENDPOINT}/bkt/pre/{BLOB}"
