"""The registry backend against Debian's docker-registry, and nginx with TLS before it."""

import base64
from functools import partial

import pytest

from nydusd.backend.registry import RegistryBackend
from nydusd.base.errors import BackendError, FailureKind
from nydusd.config.model import Connection, Registry
from tests.backend import reading
from tests.servers import nginx
from tests.servers.certificates import Authority
from tests.servers.distribution import AUTH, PROGRAM, Distribution, TokenServer

pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="needs docker-registry (Debian package docker-registry)"
)
BLOB = bytes(range(256)) * 8192
REPO = "team/app"
read = partial(reading.read, size=100_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("registry")


@pytest.fixture(scope="module")
def open_registry(folder):
    with Distribution(folder / "open") as registry:
        registry.push(REPO, BLOB)
        yield registry


@pytest.fixture
def backend_of(close_later):
    def open_one(host, connection=None, **more):
        config = Registry(host, REPO, **{"scheme": "http", **more})
        config = config._replace(connection=connection or Connection())
        return close_later(RegistryBackend(config))

    return open_one


def test_an_open_registry(open_registry, backend_of):
    backend = backend_of(open_registry.host)
    blob_id = open_registry.push(REPO, BLOB)

    assert read(backend, blob_id) == BLOB[1000:101_000]
    assert backend.reader(blob_id).size() == len(BLOB)
    with pytest.raises(BackendError, match=r"status 404 \(BLOB_UNKNOWN\)"):
        read(backend, "0" * 64)
    with pytest.raises(BackendError) as caught:
        read(backend, blob_id, offset=len(BLOB))
    assert caught.value.status == 416


def test_a_registry_with_passwords(folder, backend_of):
    with Distribution(folder / "htpasswd", htpasswd=True) as registry:
        blob_id = registry.push(REPO, BLOB)

        assert read(backend_of(registry.host, auth=AUTH), blob_id) == BLOB[1000:101_000]
        wrong = base64.b64encode(b"user:wrong").decode()
        with pytest.raises(BackendError) as caught:
            read(backend_of(registry.host, auth=wrong), blob_id)
        assert caught.value.kind is FailureKind.AUTH


def test_a_registry_with_a_token_server(folder, backend_of):
    with (
        TokenServer(folder / "tokens") as tokens,
        Distribution(folder / "token", tokens=tokens) as registry,
    ):
        blob_id = registry.push(REPO, BLOB)
        tokens.asked = 0
        backend = backend_of(registry.host, auth=AUTH)

        for offset in (0, 1000, 5000):
            assert read(backend, blob_id, offset) == BLOB[offset : offset + 100_000]
        assert tokens.asked == 1
        with pytest.raises(BackendError, match="refuses the credentials"):
            read(backend_of(registry.host), blob_id)


def test_a_token_that_the_registry_says_has_expired_is_replaced(folder, backend_of):
    with (
        TokenServer(folder / "tokens2", anonymous=True) as tokens,
        Distribution(folder / "token2", tokens=tokens) as registry,
    ):
        blob_id = registry.push(REPO, BLOB)
        tokens.life = -3600  # what the token says; the server's `expires_in` is not believed either
        old = tokens.token("test registry", f"repository:{REPO}:pull")
        tokens.life = 300
        backend = backend_of(registry.host, registry_token=old)

        assert read(backend, blob_id) == BLOB[1000:101_000]


def test_a_registry_that_was_restarted_is_read_again(folder, backend_of):
    with Distribution(folder / "restarted") as registry:
        blob_id = registry.push(REPO, BLOB)
        backend = backend_of(registry.host)
        read(backend, blob_id)
        registry.stop()
        with pytest.raises(BackendError):
            read(backend, blob_id)
        registry.start()

        assert read(backend, blob_id) == BLOB[1000:101_000]


@pytest.mark.skipif(nginx.PROGRAM is None, reason="needs nginx (Debian package nginx-light)")
def test_tls_is_told_plainly_and_spoken_with_http_2(folder, open_registry, backend_of, caplog):
    authority = Authority(folder / "authority")
    blob_id = open_registry.push(REPO, BLOB)
    upstream = f"http://{open_registry.host}"
    with (
        nginx.Nginx(
            folder / "good", upstream=upstream, certificate=authority.pair("localhost")
        ) as good,
        nginx.Nginx(
            folder / "named", upstream=upstream, certificate=authority.pair("else.invalid")
        ) as named,
    ):
        host = good.url.partition("://")[2]
        trusted = Connection(ca_cert_files=(str(authority.file),))

        backend = backend_of(host, trusted, scheme="https")
        assert read(backend, blob_id) == BLOB[1000:101_000]
        assert 'HTTP/2.0" 206' in good.requests()[-1]

        with pytest.raises(BackendError, match="add the CA to ca_cert_files, or set skip_verify"):
            read(backend_of(host, scheme="https"), blob_id)
        assert (
            read(backend_of(host, Connection(skip_verify=True), scheme="https"), blob_id)
            == BLOB[1000:101_000]
        )
        with pytest.raises(BackendError, match="is for another name"):
            read(
                backend_of(named.url.partition("://")[2], trusted, scheme="https"),
                blob_id,
            )
        missing = Connection(ca_cert_files=("/nonexistent.pem",))
        with pytest.raises(BackendError, match="No such file"):
            read(backend_of(host, missing, scheme="https"), blob_id)


@pytest.mark.skipif(nginx.PROGRAM is None, reason="needs nginx (Debian package nginx-light)")
def test_a_server_that_wants_a_client_certificate(folder, open_registry, backend_of):
    authority = Authority(folder / "clients")
    blob_id = open_registry.push(REPO, BLOB)
    with nginx.Nginx(
        folder / "mutual",
        upstream=f"http://{open_registry.host}",
        certificate=authority.pair("localhost"),
        client_authority=authority.file,
    ) as server:
        host = server.url.partition("://")[2]
        certificate, key = authority.pair("me")
        trusted = Connection(ca_cert_files=(str(authority.file),))
        known = trusted._replace(client_cert_file=str(certificate), client_key_file=str(key))

        assert read(backend_of(host, known, scheme="https"), blob_id) == BLOB[1000:101_000]
        with pytest.raises(BackendError, match="status 400"):
            read(backend_of(host, trusted, scheme="https"), blob_id)


@pytest.mark.skipif(nginx.PROGRAM is None, reason="needs nginx (Debian package nginx-light)")
def test_an_authority_that_is_renewed_is_read_again(folder, open_registry, backend_of):
    old, new = Authority(folder / "old"), Authority(folder / "new")
    blob_id = open_registry.push(REPO, BLOB)
    trusted = folder / "trusted.pem"
    trusted.write_bytes(old.file.read_bytes())
    upstream = f"http://{open_registry.host}"
    with nginx.Nginx(
        folder / "renewed", upstream=upstream, certificate=new.pair("localhost")
    ) as server:
        backend = backend_of(
            server.url.partition("://")[2],
            Connection(ca_cert_files=(str(trusted),)),
            scheme="https",
        )
        with pytest.raises(BackendError, match="ca_cert_files"):
            read(backend, blob_id)
        trusted.write_bytes(new.file.read_bytes())

        assert read(backend, blob_id) == BLOB[1000:101_000]
