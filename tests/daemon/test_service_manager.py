"""What systemd is told and what it hands over, with a socket that stands for it."""

import os
import socket

import pytest

from nydusd.base.errors import ConfigError
from nydusd.daemon import service_manager
from nydusd.daemon.service_manager import take_listening_socket, tell, watchdog_seconds


@pytest.fixture
def manager(tmp_path, monkeypatch):
    """A bound datagram socket, in the environment as systemd puts it there."""
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield sock


def test_a_state_is_one_datagram(manager):
    tell("READY=1")
    assert manager.recv(100) == b"READY=1"


def test_an_abstract_socket_is_named_with_an_at_sign(monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(f"\0nydusd-test-{os.getpid()}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@nydusd-test-{os.getpid()}")
        tell("STOPPING=1")
        assert sock.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("name", ["", "relative"])
def test_without_a_manager_nothing_is_told(monkeypatch, name):
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    tell("READY=1")


def test_a_manager_that_is_gone_is_logged(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "none"))
    tell("READY=1")
    assert "cannot tell systemd READY=1" in caplog.text


def test_a_manager_that_does_not_read_holds_nobody_up(manager, caplog):
    for _ in range(100_000):
        tell("WATCHDOG=1")
        if caplog.text:
            break
    assert "Resource temporarily unavailable" in caplog.text


def test_the_watchdog_wants_twice_as_many_signs_as_it_says(monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert watchdog_seconds() == 1.5
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert watchdog_seconds() == 1.5


@pytest.mark.parametrize(("usec", "pid"), [("", None), ("0", None), ("x", None), ("1000000", "1")])
def test_no_watchdog_or_that_of_another_process(monkeypatch, usec, pid):
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    if pid is not None:
        monkeypatch.setenv("WATCHDOG_PID", pid)
    assert watchdog_seconds() is None


@pytest.fixture
def handed(tmp_path, monkeypatch):
    """A listening socket in the place of the first that systemd hands over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(str(tmp_path / "api.sock"))
        sock.listen()
        fd = os.dup(sock.fileno())
        monkeypatch.setattr(service_manager, "FIRST_DESCRIPTOR", fd)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        yield str(tmp_path / "api.sock"), fd


def test_the_socket_of_the_path_is_taken_and_the_environment_cleared(handed):
    path, fd = handed
    with take_listening_socket(path) as taken:
        assert (taken.fileno(), taken.getsockname()) == (fd, path)
        assert not taken.getblocking()
        assert not os.get_inheritable(fd)
        assert "LISTEN_FDS" not in os.environ
        assert take_listening_socket(path) is None


def test_a_socket_for_another_path_is_refused(handed, tmp_path):
    path, fd = handed
    with pytest.raises(ConfigError, match=f"systemd listens at {path} for this service"):
        take_listening_socket(str(tmp_path / "other.sock"))
    os.close(fd)


def test_what_was_handed_to_another_process_is_not_ours(handed, monkeypatch):
    path, fd = handed
    monkeypatch.setenv("LISTEN_PID", "1")
    assert take_listening_socket(path) is None
    os.close(fd)
