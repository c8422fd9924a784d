"""Images mounted from a real registry: read back whole, and what happens while it is away."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.disclosure import login
from tests.servers import faults
from tests.servers.distribution import AUTH, PASSWORD, PROGRAM, Distribution, TokenServer
from tests.servers.registry import ScriptedRegistry
from tests.system import control
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.skipif(
        PROGRAM is None, reason="needs docker-registry (Debian package docker-registry)"
    ),
]
REPO = "team/app"
WRONG = login("user", "wrong")


def push(registry, image):
    """Bring the image's blobs in, under the ids they have."""
    for blob in image.blobs.iterdir():
        assert registry.push(REPO, blob.read_bytes()) == blob.name


def backend(registry, **more):
    config = {"host": registry.host, "repo": REPO, "scheme": "http", **more}
    return {"type": "registry", "config": config}


@pytest.mark.parametrize("name", ["v5-lz4", "v6-zstd"])
def test_an_image_reads_back_from_a_registry_with_a_token_server(serve, now, tmp_path, name):
    image = Image(GOLDEN / name)
    with (
        TokenServer(tmp_path / "tokens") as tokens,
        Distribution(tmp_path / "registry", tokens=tokens) as registry,
    ):
        push(registry, image)
        asked = tokens.asked
        with serve(image, backend=backend(registry, auth=AUTH), options=("-l", "trace")) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        assert tokens.asked == asked + 1
    for secret in (AUTH, PASSWORD, "Bearer", "eyJ"):
        assert secret not in daemon.text


def test_credentials_that_are_refused_give_errors_and_no_secret(serve, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    with Distribution(tmp_path / "registry", htpasswd=True) as registry:
        push(registry, image)
        with serve(image, backend=backend(registry, auth=WRONG)) as daemon:
            assert first_error(daemon.mountpoint) == errno.EIO
        assert daemon.wait() == 0, daemon.text
    assert "refuses the credentials" in daemon.text
    assert WRONG not in daemon.text


def files_below(mountpoint: Path):
    return [
        path for path in sorted(mountpoint.rglob("*")) if path.is_file() and path.stat().st_size
    ]


def first_error(mountpoint: Path) -> int:
    """The errno of reading the first file that cannot be read, 0 when all can."""
    for path in files_below(mountpoint):
        try:
            path.read_bytes()
        except OSError as exc:
            return exc.errno or 0
    return 0


@pytest.mark.parametrize("validate", [False, True])
def test_what_is_cached_is_served_while_the_registry_is_away(serve, now, tmp_path, validate):
    image = Image(GOLDEN / "v6-zstd")
    with Distribution(tmp_path / "registry") as registry:
        push(registry, image)
        settings = {"backend": backend(registry), "validate": validate}
        with serve(image, **settings) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)

    with serve(image, **settings) as daemon:
        assert not differences(daemon.mountpoint, image.manifest, now)
    assert daemon.wait() == 0, daemon.text


def test_a_daemon_starts_without_its_registry_and_reads_when_it_is_there(serve, now, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    registry = Distribution(tmp_path / "registry")
    with registry:
        push(registry, image)

    with serve(image, backend=backend(registry)) as daemon:
        assert first_error(daemon.mountpoint) in (errno.EIO, errno.EINVAL)
        with registry:
            assert not differences(daemon.mountpoint, image.manifest, now)
    assert daemon.wait() == 0, daemon.text


def test_a_daemon_ends_though_its_registry_hangs(serve, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    with ScriptedRegistry() as registry:
        registry.script(faults.stall, path="/v2/")
        config = {"type": "registry", "config": registry.config(timeout=150)}
        with serve(image, backend=config) as daemon:

            def read():
                # The mount may go away before anything is read.
                with contextlib.suppress(OSError):
                    first_error(daemon.mountpoint)

            reader = threading.Thread(target=read, daemon=True)
            reader.start()
            deadline = time.monotonic() + control.WAIT_S
            while not registry.requests:
                assert daemon.process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            daemon.process.send_signal(signal.SIGTERM)

            assert daemon.wait(60) == 0, daemon.text
        reader.join(60)
        assert not reader.is_alive()


def test_credentials_are_replaced_while_mounted_and_shown_nowhere(serve, now, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    api = tmp_path / "api"
    with Distribution(tmp_path / "registry", htpasswd=True) as registry:
        push(registry, image)
        with serve(
            image,
            backend=backend(registry, auth=WRONG),
            options=("-l", "trace", "--apisock", str(api)),
        ) as daemon:
            wait_for(api)
            assert first_error(daemon.mountpoint) in (errno.EIO, errno.EINVAL)
            reply = control.ask(api, "PUT", "/api/v1/config", {"registry_auth": AUTH}, id="/")
            assert reply.status == 204, reply.body
            assert not differences(daemon.mountpoint, image.manifest, now)
            shown = [
                control.ask(api, "GET", f"/api/v1/{path}").body
                for path in ("daemon", "daemon/events", "metrics/backend", "metrics/blobcache")
            ]
        assert daemon.wait() == 0, daemon.text
    for secret in (AUTH, WRONG, PASSWORD):
        assert secret not in daemon.text
        assert not any(secret.encode() in body for body in shown)


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + control.WAIT_S
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
