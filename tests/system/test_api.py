"""The control socket of a real daemon: mounts over it, and what it tells."""

from __future__ import annotations

import stat
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.system.control import WAIT_S, ask, mount_body
from tests.system.daemon import mount_id
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]

V5, V6 = Image(GOLDEN / "v5-lz4"), Image(GOLDEN / "v6-zstd")


def test_an_image_is_mounted_and_unmounted_by_request(shared, now, tmp_path):
    daemon, sock = shared
    body = mount_body(V6, tmp_path / "cache")
    assert ask(sock, "POST", "/api/v1/mount", body, mountpoint="/a/b").status == 204
    assert not differences(daemon.mountpoint / "a" / "b", V6.manifest, now)

    assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/a/b").status == 204
    assert list((daemon.mountpoint / "a" / "b").iterdir()) == []


def test_another_image_at_the_same_path_shows_nothing_of_the_first(shared, now, tmp_path):
    daemon, sock = shared
    for image in (V6, V5, V6):
        body = mount_body(image, tmp_path / "cache")
        assert ask(sock, "POST", "/api/v1/mount", body, mountpoint="/x").status == 204
        assert not differences(daemon.mountpoint / "x", image.manifest, now)
        assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/x").status == 204


def test_the_socket_is_its_owners_alone_and_goes_with_the_daemon(shared):
    daemon, sock = shared
    assert stat.S_IMODE(sock.lstat().st_mode) == 0o600

    daemon.stop()

    assert not sock.exists()


def test_exit_ends_the_daemon_and_leaves_the_mount(shared):
    daemon, sock = shared
    assert ask(sock, "PUT", "/api/v1/daemon/exit").status == 204

    assert daemon.wait() == 0, daemon.text
    assert not sock.exists()
    assert mount_id(daemon.mountpoint) is not None
    daemon.unmount()


def test_a_daemon_tells_what_it_serves(shared, tmp_path):
    _, sock = shared
    ask(sock, "POST", "/api/v1/mount", mount_body(V6, tmp_path / "cache"), mountpoint="/1")
    info = ask(sock, "GET", "/api/v1/daemon").json

    assert info["state"] == "RUNNING"
    assert list(info["backend_collection"]) == ["/1"]
    assert info["backend_collection"]["/1"]["config"]["rafs"]["prefetch"]["enable"] is False
    assert ask(sock, "GET", "/api/v2/daemon").json["backend_collection"] is None


def test_umount_by_somebody_ends_the_daemon_and_takes_the_socket(shared):
    daemon, sock = shared
    subprocess.run(["umount", "-l", daemon.mountpoint], check=True)

    assert daemon.wait() == 0, daemon.text
    assert not sock.exists()


def test_a_socket_that_a_killed_daemon_left_is_replaced(serve, tmp_path):
    sock = tmp_path / "api.sock"
    for _ in range(2):
        daemon = serve(None, options=("--apisock", str(sock)))
        daemon.start()
        until_served(sock)
        daemon.process.kill()
        daemon.wait()
        daemon.unmount()
        assert sock.exists()


def until_served(sock):
    """Wait until the daemon answers at *sock*."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            assert ask(sock, "GET", "/api/v1/daemon").json["state"] == "RUNNING"
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            return


def test_a_path_that_is_no_socket_is_refused_before_anything_is_mounted(serve, tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("data")
    daemon = serve(None, options=("--apisock", str(precious)))
    daemon.launch()

    assert daemon.wait() == 1
    assert "is not a socket" in daemon.text
    assert precious.read_text() == "data"
    assert mount_id(daemon.mountpoint) is None


def test_the_socket_of_a_daemon_that_lives_is_refused(shared, serve, tmp_path):
    _, sock = shared
    other = tmp_path / "other"
    other.mkdir()
    second = serve(None, options=("--apisock", str(sock)))
    second.argv[second.argv.index("-M") + 1] = str(other)
    second.mountpoint = other
    second.launch()

    assert second.wait() == 1
    assert "another process listens" in second.text
    assert ask(sock, "GET", "/api/v1/daemon").json["state"] == "RUNNING"


def test_an_address_that_cannot_be_had_is_refused(serve, tmp_path):
    options = ("--apisock", str(tmp_path / "s"), "--metrics-address", "256.0.0.1:1")
    daemon = serve(None, options=options)
    daemon.launch()

    assert daemon.wait() == 1
    assert "--metrics-address 256.0.0.1:1" in daemon.text


def test_many_clients_at_a_time_get_their_answers(shared, tmp_path):
    _, sock = shared
    body = mount_body(V6, tmp_path / "cache")

    def client(number):
        path = f"/c/{number}"
        assert ask(sock, "POST", "/api/v1/mount", body, mountpoint=path).status == 204
        assert ask(sock, "GET", "/api/v1/metrics", id=path).json["id"] == path
        return ask(sock, "DELETE", "/api/v1/mount", mountpoint=path).status

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(client, range(48))) == [204] * 48
    assert ask(sock, "GET", "/api/v1/daemon").json["backend_collection"] == {}
