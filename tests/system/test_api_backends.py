"""The control socket while a backend hangs or wants other credentials."""

from __future__ import annotations

import json
import threading
import time

import pytest

from tests.servers import faults
from tests.servers.registry import USER, ScriptedRegistry
from tests.system.control import ask, mount_body
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]

V5, V6 = Image(GOLDEN / "v5-lz4"), Image(GOLDEN / "v6-zstd")
WAIT_S = 60
READERS = 6


def from_registry(image, registry, cache, name="remote", **more):
    """The body of a mount request for *image*, its blobs from *registry*."""
    body = mount_body(image, cache)
    config = json.loads(body["config"])
    config["device"]["id"] = name
    config["device"]["backend"] = {"type": "registry", "config": registry.config(**more)}
    return {**body, "config": json.dumps(config)}


def blobs_of(image):
    return {path.name: path.read_bytes() for path in image.blobs.iterdir()}


def until(condition):
    """Wait until *condition* gives something that is true, and give that."""
    deadline = time.monotonic() + WAIT_S
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def read_in_background(path):
    """A thread that reads *path* whole, and does not mind if it cannot."""

    def read():
        try:
            path.read_bytes()
        except OSError:
            return

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def reads_in_flight(sock) -> list[dict[str, int]]:
    """The reads that wait, among whatever else is being answered at this moment."""
    listed = ask(sock, "GET", "/api/v1/metrics/inflight").body
    return [row for row in json.loads(listed or "[]") if row["opcode"] == 15]


def test_the_api_answers_while_the_backend_hangs(shared, now, tmp_path):
    daemon, sock = shared
    with ScriptedRegistry(blobs_of(V6)) as registry:
        body = from_registry(V6, registry, tmp_path / "cache", timeout=60)
        assert ask(sock, "POST", "/api/v1/mount", body, mountpoint="/slow").status == 204
        registry.script(faults.stall, path="/v2/")
        names = sorted(path.name for path in (daemon.mountpoint / "slow").glob("file-*"))
        threads = [
            read_in_background(daemon.mountpoint / "slow" / name) for name in names[1:READERS]
        ]
        hanging = until(lambda: reads_in_flight(sock))

        assert hanging[0]["inode"] >> 56 == 1
        for target in ("daemon", "metrics?id=/slow", "metrics/blobcache?id=remote"):
            assert ask(sock, "GET", f"/api/v1/{target}").status == 200
        assert ask(sock, "GET", "/metrics").status == 200
        other = mount_body(V5, tmp_path / "other")
        assert ask(sock, "POST", "/api/v1/mount", other, mountpoint="/quick").status == 204
        assert not differences(daemon.mountpoint / "quick", V5.manifest, now)
        assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/slow").status == 204
        # the same image again beside the one that is leaving, from a registry that answers
        registry.heal()
        again = from_registry(V6, registry, tmp_path / "again", "again")
        assert ask(sock, "POST", "/api/v1/mount", again, mountpoint="/slow").status == 204
        assert not differences(daemon.mountpoint / "slow", V6.manifest, now)
        daemon.stop()
    for thread in threads:
        thread.join(WAIT_S)
        assert not thread.is_alive()


def test_credentials_are_replaced_while_the_image_is_mounted(shared, now, tmp_path):
    daemon, sock = shared
    with ScriptedRegistry(blobs_of(V6), auth="bearer") as registry:
        wrong = "dXNlcjp3cm9uZw=="
        body = from_registry(V6, registry, tmp_path / "cache", auth=wrong, retry_limit=0)
        assert ask(sock, "POST", "/api/v1/mount", body, mountpoint="/app").status == 204
        with pytest.raises(OSError, match="Input/output error"):
            (daemon.mountpoint / "app" / "file-20000").read_bytes()

        changed = ask(sock, "PUT", "/api/v1/config", {"registry_auth": USER}, id="/app")

        assert changed.status == 204
        assert not differences(daemon.mountpoint / "app", V6.manifest, now)
    shown = [
        ask(sock, "GET", "/api/v1/config"),
        ask(sock, "GET", "/api/v1/config", id="/app"),
        ask(sock, "GET", "/api/v1/daemon"),
        ask(sock, "GET", "/api/v1/daemon/events"),
    ]
    assert shown[0].json == {"/app:registry_auth": "***"}
    for reply in shown:
        assert USER.encode() not in reply.body
        assert wrong.encode() not in reply.body
