import pytest

from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.base.errors import ConfigError
from nydusd.config.model import HttpProxy
from tests.servers.scripted import ScriptedServer

BLOB = bytes(range(256)) * 16


def read(config, blob_id="b1"):
    backend = HttpProxyBackend(config)
    try:
        reader = backend.reader(blob_id)
        buffer = bytearray(100)
        reader.read_into(buffer, 50)
        return bytes(buffer), reader.size()
    finally:
        backend.close()


@pytest.mark.parametrize(
    ("tail", "path"), [("", "a/b"), ("/", "/a/b"), ("/", "a/b/"), ("/a", "b"), ("/a/b", "")]
)
def test_slashes_are_joined_singly(tail, path):
    with ScriptedServer({"/a/b/b1": BLOB}) as server:
        assert read(HttpProxy(server.url + tail, path)) == (BLOB[50:150], len(BLOB))

    assert {seen.target for seen in server.seen} == {"/a/b/b1"}


def test_a_blob_id_is_quoted():
    with ScriptedServer({"/a%3Fb%23%25": BLOB}) as server:
        assert read(HttpProxy(server.url), "a?b#%")[0] == BLOB[50:150]


def test_one_blob_behind_a_unix_socket(tmp_path):
    with ScriptedServer({"/": BLOB}, unix_path=tmp_path / "s") as server:
        assert read(HttpProxy(str(tmp_path / "s"), "ignored")) == (BLOB[50:150], len(BLOB))

    assert {seen.target for seen in server.seen} == {"/"}


@pytest.mark.parametrize("addr", ["ftp://host", "/nonexistent", "", "host:80", "a\0b"])
def test_an_address_that_is_neither_is_refused(addr):
    with pytest.raises(ConfigError, match="neither a URL"):
        HttpProxyBackend(HttpProxy(addr))


def test_a_refused_address_shows_no_password():
    with pytest.raises(ConfigError) as caught:
        HttpProxyBackend(HttpProxy("ftp://me:secret@host"))

    assert "secret" not in str(caught.value)
