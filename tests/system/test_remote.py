"""Images mounted from S3, OSS, nginx with TLS, mirrors and a P2P proxy; and broken servers."""

from __future__ import annotations

import contextlib
import errno
import shutil
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.disclosure import MARK, secret
from tests.servers import faults
from tests.servers.certificates import Authority
from tests.servers.forward_proxy import ForwardProxy
from tests.servers.loopback import LoopbackServer
from tests.servers.nginx import PROGRAM as NGINX
from tests.servers.nginx import Nginx
from tests.servers.oss import OssServer
from tests.servers.s3 import REGION, S3Server
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]
needs_nginx = pytest.mark.skipif(NGINX is None, reason="needs nginx (Debian package nginx-light)")
REPO = "team/app"
IMAGES = ["v5-lz4", "v6-zstd"]


def paths(image):
    """The image's blobs by the path that a registry has them under."""
    return {f"/v2/{REPO}/blobs/sha256:{blob.name}": blob for blob in image.blobs.iterdir()}


def objects(image):
    return {path: blob.read_bytes() for path, blob in paths(image).items()}


def registry(netloc, **more):
    config = {"scheme": "http", "host": netloc, "repo": REPO, **more}
    return {"type": "registry", "config": config}


def www(image, folder):
    """A folder for nginx to serve the image's blobs from."""
    for path, blob in paths(image).items():
        target = folder / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(blob, target)
        target.chmod(0o644)
    return folder


def open_to_all(folder: Path):
    """Let nginx, which is another user, pass through *folder*'s parents."""
    for each in (folder, *folder.parents):
        if each.stat().st_uid == 0 and len(each.parts) > 2:
            each.chmod(each.stat().st_mode | 0o011)


def first_error(mountpoint):
    """The errno of reading the first file that cannot be read, 0 when all can."""
    for path in sorted(mountpoint.rglob("*")):
        if path.is_file():
            try:
                path.read_bytes()
            except OSError as exc:
                return exc.errno
    return 0


def test_an_image_reads_back_from_s3(serve, now):
    image = Image(GOLDEN / "v6-zstd")
    with S3Server("bkt") as server:
        for blob in image.blobs.iterdir():
            server.put(f"pre/{blob.name}", blob.read_bytes())
        config = {
            "scheme": "http",
            "endpoint": server.netloc,
            "region": REGION,
            "bucket_name": "bkt",
            "object_prefix": "pre/",
            "access_key_id": server.keys.key_id,
            "access_key_secret": server.keys.secret,
        }
        with serve(
            image, backend={"type": "s3", "config": config}, options=("-l", "trace")
        ) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        assert server.keys.secret not in daemon.text
        assert server.keys.key_id not in daemon.text


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_reads_back_from_oss(serve, now, name):
    image = Image(GOLDEN / name)
    with OssServer("bkt", secret("key-id"), secret("key")) as server:
        server.objects = {f"/{blob.name}": blob.read_bytes() for blob in image.blobs.iterdir()}
        config = {
            "scheme": "http",
            "endpoint": f"localhost:{server.port}",
            "bucket_name": "bkt",
            "access_key_id": secret("key-id"),
            "access_key_secret": secret("key"),
        }
        with serve(
            image, backend={"type": "oss", "config": config}, options=("-l", "trace")
        ) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        assert MARK not in daemon.text


@needs_nginx
def test_an_image_reads_back_through_tls_and_http_2(serve, now, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    authority = Authority(tmp_path / "authority")
    root = www(image, tmp_path / "www")
    open_to_all(root)
    with Nginx(tmp_path / "nginx", root=root, certificate=authority.pair("localhost")) as server:
        backend = registry(
            server.url.partition("://")[2], scheme="https", ca_cert_files=[str(authority.file)]
        )
        with serve(image, backend=backend) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        assert all("HTTP/2" in line for line in server.requests())


@needs_nginx
def test_a_mirror_serves_what_its_dead_origin_cannot(serve, now, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    root = www(image, tmp_path / "www")
    open_to_all(root)
    with Nginx(tmp_path / "nginx", root=root) as mirror, LoopbackServer(objects(image)) as origin:
        mirrors = [{"host": mirror.url, "auth_through": True}]
        with serve(image, backend=registry(origin.netloc, mirrors=mirrors)) as daemon:
            origin.stop()
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        assert mirror.requests()
    assert not origin.requests


@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_a_mirror_that_lies_is_distrusted_and_nothing_of_it_is_kept(serve, now, name):
    image = Image(GOLDEN / name)
    origin, liar, sound = (LoopbackServer(objects(image)) for _ in range(3))
    with origin, liar, sound:
        liar.script(faults.corrupt_body)
        mirrors = [{"host": each.url, "auth_through": True} for each in (liar, sound)]
        backend = registry(origin.netloc, mirrors=mirrors, hedged_reads=False)
        with serve(image, backend=backend, validate=True, amplify=0) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text
        # Those that were under way before the first wrong chunk was noticed, and no more.
        assert 1 <= len(liar.requests) <= 4 < len(sound.requests)
        assert not origin.requests

    with serve(image, backend=backend, validate=False) as daemon:  # what the files say is believed
        assert not differences(daemon.mountpoint, image.manifest, now)
    assert daemon.wait() == 0, daemon.text


def test_a_second_daemon_is_served_by_the_p2p_proxy(serve, now, tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    with LoopbackServer(objects(image)) as origin, ForwardProxy() as proxy:
        backend = registry(origin.netloc, proxy={"url": proxy.url, "ping_url": f"{proxy.url}/ping"})
        for turn in ("first", "second"):
            with serve(image, cache=tmp_path / turn, backend=backend) as daemon:
                assert not differences(daemon.mountpoint, image.manifest, now)
            assert daemon.wait() == 0, daemon.text
        assert proxy.hits
        assert len(origin.requests) == proxy.misses


@pytest.mark.parametrize(
    "fault",
    [
        None,
        faults.stall,
        faults.reset_in_body,
        faults.garbage,
        faults.corrupt_body,
        partial(faults.status, code=503),
    ],
    ids=["refused", "stall", "reset_in_body", "garbage", "corrupt_body", "status_503"],
)
@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_a_broken_server_costs_the_reads_and_nothing_else(serve, now, name, fault):
    image = Image(GOLDEN / name)
    with LoopbackServer(objects(image)) as server:
        if fault is None:
            server.stop()
        else:
            server.script(fault)
        backend = registry(server.netloc, timeout=1, connect_timeout=1, retry_limit=1)
        with serve(image, backend=backend, validate=True) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now, with_data=False)
            assert first_error(daemon.mountpoint) in (errno.EIO, errno.EINVAL)
            if fault is None:
                server.start()
            server.heal()
            assert not differences(daemon.mountpoint, image.manifest, now)
        assert daemon.wait() == 0, daemon.text


def test_it_ends_while_a_read_waits_for_a_server_that_hangs(serve):
    image = Image(GOLDEN / "v6-zstd")
    with LoopbackServer(objects(image)) as server:
        server.script(faults.stall)
        with serve(image, backend=registry(server.netloc, timeout=0)) as daemon:

            def read():
                with contextlib.suppress(OSError):
                    (daemon.mountpoint / "file-100").read_bytes()

            reader = threading.Thread(target=read)
            reader.start()
            server.wait_for(requests=1)
            daemon.stop()
            reader.join(60)
        assert not reader.is_alive()
        assert daemon.wait() == 0, daemon.text
