import threading
from pathlib import Path

import pytest

from nydusd.backend.http_proxy import HttpProxyBackend
from nydusd.base.errors import ConfigError
from nydusd.config.model import Connection, HttpProxy
from tests.servers import nginx
from tests.servers.certificates import Authority
from tests.servers.loopback import LoopbackServer

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
    with LoopbackServer({"/a/b/b1": BLOB}) as server:
        assert read(HttpProxy(server.url + tail, path)) == (BLOB[50:150], len(BLOB))

    assert {seen.target for seen in server.requests} == {"/a/b/b1"}


def test_a_blob_id_is_quoted():
    with LoopbackServer({"/a%3Fb%23%25": BLOB}) as server:
        assert read(HttpProxy(server.url), "a?b#%")[0] == BLOB[50:150]


def test_one_blob_behind_a_unix_socket(tmp_path):
    with LoopbackServer({"/": BLOB}, unix=tmp_path / "s") as server:
        assert read(HttpProxy(str(tmp_path / "s"), "ignored")) == (BLOB[50:150], len(BLOB))

    assert {seen.target for seen in server.requests} == {"/"}


@pytest.mark.parametrize("addr", ["ftp://host", "/nonexistent", "", "host:80", "a\0b"])
def test_an_address_that_is_neither_is_refused(addr):
    with pytest.raises(ConfigError, match="neither a URL"):
        HttpProxyBackend(HttpProxy(addr))


def test_a_refused_address_shows_no_password():
    with pytest.raises(ConfigError) as caught:
        HttpProxyBackend(HttpProxy("ftp://me:secret@host"))

    assert "secret" not in str(caught.value)


@pytest.mark.skipif(nginx.PROGRAM is None, reason="needs nginx (Debian package nginx-light)")
def test_many_readers_share_one_connection_to_nginx_over_http_2(tmp_path):
    (tmp_path / "web" / "blobs").mkdir(parents=True)
    blob = BLOB * 64
    (tmp_path / "web" / "blobs" / "b1").write_bytes(blob)
    authority = Authority(tmp_path / "authority")
    with nginx.Nginx(
        tmp_path / "nginx", root=tmp_path / "web", certificate=authority.pair("localhost")
    ) as server:
        connection = Connection(ca_cert_files=(str(authority.file),))
        backend = HttpProxyBackend(HttpProxy(server.url, "/blobs/", connection))
        wrong = []

        def read_some(number):
            reader = backend.reader("b1")
            buffer = bytearray(20_000)
            for turn in range(5):
                offset = number * 7000 + turn
                reader.read_into(buffer, offset)
                if buffer != blob[offset : offset + len(buffer)]:
                    wrong.append(offset)

        threads = [threading.Thread(target=read_some, args=(number,)) for number in range(24)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        connections = connections_to(server.port)
        backend.close()

    assert not wrong
    assert len(server.requests()) == 24 * 5
    assert all('HTTP/2.0" 206' in line for line in server.requests())
    assert connections == 1


def connections_to(port):
    """Established connections to *port* of loopback, by the kernel's table."""
    end = f":{port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[2].endswith(end) and row[3] == "01" for row in rows)
