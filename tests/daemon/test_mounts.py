import errno
import os
import threading
import time
from pathlib import Path

import pytest

from nydusd.backend.open import open_backend
from nydusd.base.errors import BackendError, BootstrapError, ConfigError, MountError
from nydusd.cache.pool import BlobPool
from nydusd.config import model
from nydusd.daemon.mounts import MountKind, MountRequest, Mounts
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel
from tests.servers.loopback import LoopbackServer

GOLDEN = Path(__file__).parents[1] / "golden" / "images"
IMAGES = ("v5-lz4", "v6-zstd")


@pytest.fixture
def vfs():
    return Vfs()


@pytest.fixture
def pool():
    return BlobPool()


@pytest.fixture
def mounts(vfs, pool):
    made = Mounts(vfs, pool, start_time=0.0)
    yield made
    made.close()


def request_for(image, work_dir, mountpoint="/", blobs=None, prefetch=None, **rafs):
    prefetch = prefetch or model.NO_PREFETCH
    config = model.Config(
        backend=model.Backend(
            type="localfs", localfs=model.LocalFs(dir=str(blobs or GOLDEN / image / "blobs"))
        ),
        cache=model.Cache(
            type="blobcache",
            filecache=model.FileCache(work_dir=str(work_dir)),
            prefetch=prefetch,
        ),
        rafs=model.Rafs(prefetch=prefetch, **rafs),
    )
    return MountRequest(MountKind.RAFS, str(GOLDEN / image / "bootstrap"), config, mountpoint)


def ready_chunks(work_dir):
    maps = list(Path(work_dir).glob("*.blob.data.chunk_map"))
    return sum(bin(byte).count("1") for path in maps for byte in path.read_bytes()[4096:])


@pytest.mark.parametrize("image", IMAGES)
def test_an_image_is_mounted_and_unmounted(mounts, vfs, pool, tmp_path, image):
    mounts.mount(request_for(image, tmp_path))

    assert vfs.mounts() == {"/": 1}
    assert list(mounts.list()) == ["/"]
    assert pool.blobs()
    mounts.umount("/")
    assert not vfs.mounts()
    assert not mounts.list()
    assert not pool.blobs()


def test_two_mounts_of_one_image_share_its_blobs(mounts, pool, tmp_path):
    mounts.mount(request_for("v6-zstd", tmp_path, "/a"))
    open_once = len(pool.blobs())
    mounts.mount(request_for("v6-zstd", tmp_path, "/b/c"))

    assert len(pool.blobs()) == open_once


def test_a_taken_mountpoint_is_refused(mounts, tmp_path):
    mounts.mount(request_for("v6-zstd", tmp_path))

    with pytest.raises(MountError, match="mounted already"):
        mounts.mount(request_for("v5-lz4", tmp_path))


def test_what_was_not_mounted_cannot_be_unmounted(mounts):
    with pytest.raises(MountError, match="not mounted"):
        mounts.umount("/nothing")


def test_a_missing_bootstrap_is_an_error(mounts, tmp_path):
    request = request_for("v6-zstd", tmp_path)

    with pytest.raises(FileNotFoundError):
        mounts.mount(MountRequest(request.kind, str(tmp_path / "none"), request.config, "/"))


def test_a_file_that_is_no_bootstrap_is_refused(mounts, tmp_path):
    (tmp_path / "text").write_text("hello")
    request = request_for("v6-zstd", tmp_path)

    with pytest.raises(BootstrapError, match="neither"):
        mounts.mount(MountRequest(request.kind, str(tmp_path / "text"), request.config, "/"))


def test_a_failed_mount_leaves_nothing_behind(mounts, vfs, pool, tmp_path):
    with pytest.raises(BackendError):
        mounts.mount(request_for("v6-zstd", tmp_path / "cache", blobs=tmp_path))

    assert not vfs.mounts()
    assert not pool.blobs()
    mounts.mount(request_for("v6-zstd", tmp_path / "cache"))


def test_validation_of_inodes_is_refused_for_version_6(mounts, tmp_path):
    with pytest.raises(ConfigError, match="integrity validation"):
        mounts.mount(request_for("v6-zstd", tmp_path, validate=True))


def test_a_configuration_without_a_cache_section_is_refused(mounts, tmp_path):
    request = request_for("v6-zstd", tmp_path)
    config = request.config._replace(cache=None)

    with pytest.raises(ConfigError, match="sections backend, cache and rafs"):
        mounts.mount(MountRequest(request.kind, request.source, config, "/"))


@pytest.mark.parametrize("image", IMAGES)
def test_prefetch_fills_the_cache_without_a_reader(mounts, pool, tmp_path, image):
    prefetch = model.Prefetch(enable=True, threads=1, prefetch_all=True)
    mounts.mount(request_for(image, tmp_path, prefetch=prefetch))
    wanted = sum(blob.info.chunk_count for blob in pool.blobs())

    deadline = time.monotonic() + 60
    while ready_chunks(tmp_path) < wanted and time.monotonic() < deadline:
        os.sched_yield()

    assert wanted > 0
    assert ready_chunks(tmp_path) == wanted


class GatedReader:
    """A reader that lets nobody through before *gate* is open."""

    def __init__(self, reader, gate):
        self.reader = reader
        self.gate = gate

    def size(self):
        return self.reader.size()

    def read_into(self, buffer, offset, *, background=False):
        self.gate.wait()
        self.reader.read_into(buffer, offset)

    def close(self):
        self.reader.close()


class GatedBackend:
    def __init__(self, config, gate):
        self.backend = open_backend(config)
        self.gate = gate

    def reader(self, blob_id):
        return GatedReader(self.backend.reader(blob_id), self.gate)

    def close(self):
        self.backend.close()


def test_a_backend_that_hangs_delays_the_end_by_a_limited_time(vfs, tmp_path, caplog):
    gate = threading.Event()
    mounts = Mounts(vfs, BlobPool(lambda config: GatedBackend(config, gate)), start_time=0.0)
    mounts.mount(request_for("v6-zstd", tmp_path))
    deferred = DeferredReads(vfs)
    deferred.start()
    kernel = Kernel(Server(vfs, deferred))
    node = wire.entry_of(kernel.ask(wire.LOOKUP, b"file-20000\0"))[0]
    kernel.send(wire.request(wire.READ, wire.read_arg(0, 100), node=node))
    assert vfs.in_flight("/") == 1

    mounts.close(timeout=0.05)

    assert not mounts.list()
    assert "given up" in caplog.text
    gate.set()  # the read that was inside has all it needs still open
    _, code, data = kernel.receive()
    assert (code, len(data)) == (0, 100)
    deferred.stop(-errno.EIO)
    kernel.close()


def remote_request(addr, work_dir):
    request = request_for("v6-zstd", work_dir)
    backend = model.Backend("http-proxy", http_proxy=model.HttpProxy(addr))
    return request._replace(config=request.config._replace(backend=backend))


def test_the_chunk_table_of_a_remote_blob_is_got_before_anybody_reads(mounts, tmp_path):
    (blob,) = (GOLDEN / "v6-zstd" / "blobs").iterdir()
    with LoopbackServer({f"/{blob.name}": blob.read_bytes()}) as server:
        mounts.mount(remote_request(server.url, tmp_path))
        server.wait_for(requests=1)
        mounts.umount("/")

    assert len(server.requests) == 1


def test_a_mount_does_not_wait_for_a_backend_that_is_away(mounts, tmp_path):
    mounts.mount(remote_request("http://127.0.0.1:9", tmp_path))

    assert list(mounts.list()) == ["/"]
