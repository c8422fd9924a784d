import socket
import stat

import pytest

from nydusd.api.socket_file import SocketFile, is_served
from nydusd.base.errors import ConfigError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "api.sock"


def test_a_socket_is_made_served_and_removed(path):
    file = SocketFile(str(path))
    with file.listen():
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
        assert is_served(str(path))
        file.remove()
    assert not path.exists()


def test_a_socket_that_nobody_listens_on_is_replaced(path):
    SocketFile(str(path)).listen().close()
    assert path.exists()
    assert not is_served(str(path))

    with SocketFile(str(path)).listen():
        assert is_served(str(path))


def test_an_empty_file_is_replaced(path):
    path.touch()

    with SocketFile(str(path)).listen():
        assert is_served(str(path))


def test_a_socket_that_is_served_is_left_alone(path):
    with SocketFile(str(path)).listen():
        with pytest.raises(ConfigError, match="another process listens"):
            SocketFile(str(path))
        assert is_served(str(path))


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_no_socket_is_left_alone(path, kind):
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()

    with pytest.raises(ConfigError, match="not a socket"):
        SocketFile(str(path))


def test_a_path_that_is_too_long_is_a_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="too long"):
        SocketFile(str(tmp_path / ("x" * 120))).listen()


def test_the_file_of_a_successor_is_not_removed(path):
    first = SocketFile(str(path))
    first.listen().close()
    with SocketFile(str(path)).listen():
        first.remove()

        assert is_served(str(path))


def test_a_full_queue_counts_as_served(path):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen(0)
        clients = []
        for _ in range(3):
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            client.connect_ex(str(path))
            clients.append(client)

        assert is_served(str(path))
        for client in clients:
            client.close()
