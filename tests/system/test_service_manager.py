"""A daemon as systemd's service: readiness, signs of life, a socket that is there already."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.system.control import ask
from tests.system.daemon import Command
from tests.system.images import GOLDEN, Image

pytestmark = [pytest.mark.root, pytest.mark.fuse]

IMAGE = Image(GOLDEN / "v6-zstd")
UNITS = Path(__file__).resolve().parent.parent.parent / "packaging" / "systemd"


@pytest.fixture
def manager(tmp_path):
    """Gets what is told."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.bind(str(tmp_path / "notify"))
        yield sock


@pytest.mark.parametrize("with_api", [False, True])
def test_it_tells_when_it_is_ready_that_it_lives_and_that_it_stops(
    serve, manager, tmp_path, with_api
):
    options = ("--apisock", str(tmp_path / "api.sock")) if with_api else ()
    daemon = serve(IMAGE, options=options)
    daemon.env |= {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "100000"}
    daemon.launch()
    told = manager.recv(100)
    while told == b"WATCHDOG=1":
        told = manager.recv(100)
    assert told == b"READY=1"
    assert daemon.is_up()
    if with_api:
        assert ask(tmp_path / "api.sock", "GET", "/api/v1/daemon").json["state"] == "RUNNING"
    assert [manager.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    daemon.process.terminate()
    while (told := manager.recv(100)) == b"WATCHDOG=1":
        pass
    assert told == b"STOPPING=1"
    assert daemon.wait() == 0


# systemd's part: the socket as descriptor 3, and the pid of who is to have it
HAND_OVER = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execvp(sys.argv[2], sys.argv[2:])
"""


def test_a_request_that_came_before_the_daemon_is_answered(serve, nydusd: Command, tmp_path):
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        early = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        early.settimeout(60)
        early.connect(str(path))
        early.sendall(b"GET /api/v1/daemon HTTP/1.1\r\n\r\n")
        daemon = serve(IMAGE, options=("--apisock", str(path)))
        number = listener.fileno()
        daemon.argv = [sys.executable, "-c", HAND_OVER, str(number), *daemon.argv]
        daemon.log = (tmp_path / "log").open("w+b")
        daemon.process = subprocess.Popen(
            daemon.argv,
            env=daemon.env,
            stdin=subprocess.DEVNULL,
            stdout=daemon.log,
            stderr=daemon.log,
            pass_fds=[number],
        )
        with early:
            assert b'"state":"RUNNING"' in early.recv(1 << 16)
        assert daemon.stop() == 0
        assert path.exists()  # the file is systemd's


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("name", ["nydusd@.service", "nydusd@.socket"])
def test_systemd_understands_the_units(tmp_path, name):
    for unit in UNITS.iterdir():
        text = unit.read_text().replace("/usr/bin/nydusd", "/bin/true")
        (tmp_path / unit.name.replace("@.", "@web.")).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name.replace("@.", "@web."))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "nydusd" in line]
    assert not ours, done.stderr
