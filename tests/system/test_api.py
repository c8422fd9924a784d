"""The control socket of a real daemon: mounts over it, and what it tells."""

from __future__ import annotations

import stat

import pytest

from tests.system.control import ask, mount_body
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
