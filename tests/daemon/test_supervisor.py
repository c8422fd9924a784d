"""The supervisor's socket: what goes over it, and every way in which the other side is wrong."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from nydusd.daemon.errors import UpgradeFailed
from nydusd.daemon.supervisor import MOST_STATE_BYTES, knock, receive_state, send_state
from tests.servers.supervisor import Supervisor

SHORT_S = 0.3
WAIT_S = 60
STATE = bytes(range(256)) * 300  # more than the first message carries for every reader

pytestmark = pytest.mark.fuse


@pytest.fixture
def fuse_fd():
    fd = os.open("/dev/fuse", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def supervisor(tmp_path):
    with Supervisor(tmp_path / "sock") as supervisor:
        yield supervisor


def open_descriptors() -> set[str]:
    found = set()
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # of the listing itself, or just closed
            found.add(f"{fd.name} {fd.readlink()}")
    return found


@pytest.fixture(autouse=True)
def no_leaks(fuse_fd):
    before = open_descriptors()
    yield
    # The thread that plays the supervisor lets go of its sockets when it comes to it.
    deadline = time.monotonic() + WAIT_S
    while left := open_descriptors() - before - {f"{fuse_fd} /dev/fuse"}:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def is_fuse(fd: int) -> bool:
    return os.fstat(fd).st_rdev == Path("/dev/fuse").stat().st_rdev


@pytest.mark.parametrize("state", [b"x", STATE, STATE * 40], ids=["1", "77 KB", "3 MB"])
def test_state_and_descriptor_arrive_together(supervisor, fuse_fd, state):
    done = supervisor.receive()
    send_state(str(supervisor.path), state, fuse_fd)
    done.result(60)
    assert supervisor.state == state
    assert is_fuse(supervisor.fd)


@pytest.mark.parametrize("state", [b"x", STATE, STATE * 40], ids=["1", "77 KB", "3 MB"])
def test_state_and_descriptor_come_back(supervisor, fuse_fd, state):
    supervisor.state, supervisor.fd = state, os.dup(fuse_fd)
    done = supervisor.give()
    data, fd = receive_state(str(supervisor.path))
    done.result(60)
    assert data == state
    assert is_fuse(fd)
    assert not os.get_inheritable(fd)
    os.close(fd)


def test_a_message_in_pieces_is_put_together(supervisor, fuse_fd):
    def part(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"a"], [fuse_fd])
        for piece in (b"b", b"cd", b"efg"):
            connection.sendall(piece)

    supervisor.play(part)
    data, fd = receive_state(str(supervisor.path))
    os.close(fd)
    assert data == b"abcdefg"


def test_nobody_there_is_told_as_the_reference_does(tmp_path, fuse_fd):
    missing = str(tmp_path / "none")
    words = (
        'StorageBackendError(CreateUnixStream(Os { code: 2, kind: NotFound, message: "No such '
        'file or directory" }))'
    )
    for attempt in (lambda: send_state(missing, b"x", fuse_fd), lambda: receive_state(missing)):
        with pytest.raises(UpgradeFailed) as failure:
            attempt()
        assert str(failure.value) == words


def test_a_path_that_no_socket_can_have_is_an_error():
    with pytest.raises(UpgradeFailed, match=r"CreateUnixStream.*too long"):
        receive_state("/" + "x" * 200)


def sends(data: bytes, *fds: int):
    def part(connection: socket.socket) -> None:
        if fds:
            socket.send_fds(connection, [data], fds)
        elif data:
            connection.sendall(data)

    return part


def test_a_state_without_a_descriptor_is_told_as_the_reference_does(supervisor):
    supervisor.play(sends(b"state"))
    with pytest.raises(UpgradeFailed) as failure:
        receive_state(str(supervisor.path))
    assert str(failure.value) == "StorageBackendError(NoEnoughFds)"


def test_nothing_at_all_is_no_descriptor(supervisor):
    supervisor.play(sends(b""))
    with pytest.raises(UpgradeFailed, match="NoEnoughFds"):
        receive_state(str(supervisor.path))


def test_two_descriptors_are_refused_and_closed(supervisor, fuse_fd):
    supervisor.play(sends(b"state", fuse_fd, fuse_fd))
    with pytest.raises(UpgradeFailed, match="2 descriptors, and one is expected"):
        receive_state(str(supervisor.path))


def test_a_descriptor_with_each_of_two_messages_is_two(supervisor, fuse_fd):
    def part(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"a"], [fuse_fd])
        socket.send_fds(connection, [b"b"], [fuse_fd])

    supervisor.play(part)
    with pytest.raises(UpgradeFailed, match="2 descriptors"):
        receive_state(str(supervisor.path))


def test_more_descriptors_than_there_is_room_for_are_refused(supervisor, fuse_fd):
    supervisor.play(sends(b"state", *[fuse_fd] * 40))
    with pytest.raises(UpgradeFailed, match="more than 16 descriptors"):
        receive_state(str(supervisor.path))


@pytest.mark.parametrize("path", ["/dev/null", "/"])
def test_a_descriptor_of_something_else_is_refused(supervisor, path):
    other = os.open(path, os.O_RDONLY)
    try:
        supervisor.play(sends(b"state", other))
        with pytest.raises(UpgradeFailed, match="not one of /dev/fuse"):
            receive_state(str(supervisor.path))
    finally:
        os.close(other)


def test_a_supervisor_that_hangs_is_given_up(supervisor, fuse_fd):
    released = threading.Event()

    def part(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"a"], [fuse_fd])
        released.wait(20)

    done = supervisor.play(part)
    with pytest.raises(UpgradeFailed, match=r"RecvFd\(Os { code: 110, kind: TimedOut"):
        receive_state(str(supervisor.path), SHORT_S)
    released.set()
    done.result(60)


def test_a_supervisor_that_drips_is_given_up(supervisor, fuse_fd):
    released = threading.Event()

    def part(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"a"], [fuse_fd])
        while not released.wait(0.02):
            connection.sendall(b"a")

    done = supervisor.play(part)
    with pytest.raises(UpgradeFailed, match="TimedOut"):
        receive_state(str(supervisor.path), SHORT_S)
    released.set()
    assert done.exception(60) is None or isinstance(done.exception(), OSError)


def test_a_supervisor_that_does_not_read_is_given_up(supervisor, fuse_fd):
    released = threading.Event()
    done = supervisor.play(lambda _connection: released.wait(20))
    with pytest.raises(UpgradeFailed, match=r"SendFd\(Os { code: 110, kind: TimedOut"):
        send_state(str(supervisor.path), bytes(32 << 20), fuse_fd, SHORT_S)
    released.set()
    done.result(60)


def test_a_supervisor_that_hangs_up_is_an_error(supervisor, fuse_fd):
    done = supervisor.play(lambda _connection: None)
    with pytest.raises(UpgradeFailed, match="SendFd"):
        send_state(str(supervisor.path), bytes(32 << 20), fuse_fd)
    done.result(60)


def test_a_supervisor_that_never_ends_does_not_fill_the_memory(supervisor, fuse_fd):
    def part(connection: socket.socket) -> None:
        socket.send_fds(connection, [b"a"], [fuse_fd])
        while True:
            connection.sendall(bytes(1 << 20))

    done = supervisor.play(part)
    with pytest.raises(UpgradeFailed, match=f"more than {MOST_STATE_BYTES} bytes"):
        receive_state(str(supervisor.path))
    with pytest.raises(OSError, match=r"Broken pipe|reset"):
        done.result(60)


def test_a_knock_lets_the_listener_go_on(supervisor):
    done = supervisor.receive()
    knock(str(supervisor.path))
    with pytest.raises(ValueError, match="without a descriptor"):
        done.result(60)


def test_a_knock_where_nobody_listens_is_silent(tmp_path):
    knock(str(tmp_path / "none"))
