"""The carrier of the kernel's cache, driven by a script that plays the kernel."""

import errno
import os
import struct
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nydusd.backend.open import open_backend
from nydusd.base.errors import BackendError
from nydusd.cache.pool import BlobPool
from nydusd.config.blob_entry import make_entry
from nydusd.daemon.blob_sources import find_source
from nydusd.daemon.blobs import BlobTable
from nydusd.fscache.cookies import fan_out
from nydusd.fscache.server import CacheServer
from nydusd.rafs.load import load_bootstrap
from tests.servers.cachefiles import PAGE, WAIT_S, Kernel
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

V6 = Image(GOLDEN / "v6-zstd")
KINDS = [
    GOLDEN / name
    for name in (
        "v6-none", "v6-lz4", "v6-zstd", "v6-batch", "v6-encrypted", "v6-batch-encrypted",
        "v6-gzip-members",
    )
]  # fmt: skip


class MeteredBackend:
    """A backend that counts reads, and can be made to fail or to wait."""

    def __init__(self, config):
        self.inner = open_backend(config)
        self.reads = 0
        self.fails = False
        self.gate = threading.Event()
        self.gate.set()

    def reader(self, blob_id):
        return MeteredReader(self, self.inner.reader(blob_id))

    def change_setting(self, name, value):
        return False

    def close(self):
        self.inner.close()


class MeteredReader:
    def __init__(self, backend, inner):
        self.backend = backend
        self.inner = inner

    def size(self):
        return self.inner.size()

    def read_into(self, buffer, offset, *, background=False):
        self.backend.reads += 1
        assert self.backend.gate.wait(WAIT_S)
        if self.backend.fails:
            raise BackendError("scripted to fail")
        self.inner.read_into(buffer, offset, background=background)

    def distrust(self, offset, size):
        return False

    def close(self):
        self.inner.close()


class Host:
    """A kernel, a server, and what it knows."""

    def __init__(self, folder):
        self.folder = folder
        self.work_dir = folder / "work"
        self.work_dir.mkdir()
        self.kernel = Kernel()
        self.backends = []
        self.table = BlobTable()
        self.ended = threading.Event()

        def metered(config):
            self.backends.append(MeteredBackend(config))
            return self.backends[-1]

        self.pool = BlobPool(metered)
        self.server = None

    def add(self, image=V6, cache="fscache", blobs=None, **prefetch):
        config = {
            "backend_type": "localfs",
            "backend_config": {"dir": str(blobs or image.blobs)},
            "cache_type": cache,
            "cache_config": {"work_dir": str(self.work_dir)},
            "metadata_path": str(image.bootstrap),
        }
        if prefetch:
            config["prefetch_config"] = prefetch
        entry = {"type": "bootstrap", "id": "boot", "domain_id": "d", "config": config}
        self.table.add(make_entry(entry))
        return load_bootstrap(image.bootstrap).blobs

    def start(self, threads=4):
        self.kernel.device.bind(str(self.folder), "tag")
        self.server = CacheServer(
            self.kernel.device,
            self.folder,
            lambda domain, blob: find_source(self.table, self.pool, domain, blob),
            threads,
            self.ended.set,
        )
        self.server.start()
        return self.kernel

    def stop(self):
        for backend in self.backends:
            backend.gate.set()
        if self.server is not None:
            self.server.stop()
        self.kernel.end()


@pytest.fixture
def host(tmp_path):
    made = Host(tmp_path)
    yield made
    made.stop()


def until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def read_all(kernel, found, step=64 << 10):
    for offset in range(0, found.size, step):
        kernel.read(found, offset, min(step, found.size - offset))
    return found.path.read_bytes()


def test_the_cache_is_bound_in_the_kernels_order(host):
    kernel = host.start()

    assert kernel.commands == [f"dir {host.folder}", "tag tag", "bind ondemand"]


def test_a_bootstrap_is_its_file(host):
    host.add()
    kernel = host.start()
    found = kernel.open("d", "boot")

    assert found.size == V6.bootstrap.stat().st_size
    assert read_all(kernel, found) == V6.bootstrap.read_bytes()


def test_a_bootstrap_is_filled_without_being_asked_for(host):
    host.add()
    kernel = host.start()
    found = kernel.open("d", "boot")

    until(lambda: found.path.read_bytes() == V6.bootstrap.read_bytes())
    assert kernel.requests == 1


def erofs_reason():
    if "erofs" not in Path("/proc/filesystems").read_text():
        return "the kernel has no EROFS"
    if not Path("/dev/loop-control").exists():
        return "there are no loop devices"
    return "" if os.geteuid() == 0 else "mounting needs root"


@pytest.mark.root
@pytest.mark.skipif(bool(erofs_reason()), reason=erofs_reason() or "-")
@pytest.mark.parametrize("cache", ["fscache", "blobcache"])
@pytest.mark.parametrize("folder", KINDS, ids=lambda path: path.name)
def test_the_kernels_erofs_shows_the_image_from_the_filled_files(host, folder, cache):
    image = Image(folder)
    infos = host.add(image, cache)
    kernel = host.start()
    objects = [kernel.open("d", "boot")]
    objects += [kernel.open("d", info.blob_id) for info in infos]
    for each in objects:
        read_all(kernel, each)
    point = host.folder / "mnt"
    point.mkdir()

    loops = attach([each.path for each in objects])
    try:
        done = subprocess.run(
            ["mount", "-t", "erofs", "-o", options(loops[1:]), loops[0], str(point)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        try:
            assert not differences(point, image.manifest, 0.0)  # EROFS shows a time of 0
        finally:
            subprocess.run(["umount", str(point)], check=True)
    finally:
        for each in loops:
            subprocess.run(["losetup", "-d", each], check=True)


def attach(paths):
    """Loop devices of *paths*, read-only."""
    made = []
    for path in paths:
        done = subprocess.run(
            ["losetup", "--show", "-f", "-r", str(path)], capture_output=True, text=True, check=True
        )
        made.append(done.stdout.strip())
    return made


def options(devices):
    return ",".join(["ro", *(f"device={each}" for each in devices)])


def data_object(host, **settings):
    (info, *_) = host.add(**settings)
    kernel = host.start()
    return kernel, kernel.open("d", info.blob_id), info


def test_opening_a_data_blob_asks_no_backend(host):
    _, found, info = data_object(host)

    assert found.size == info.uncompressed_size
    assert host.backends == []


def test_readers_of_one_chunk_share_a_request(host):
    kernel, found, _ = data_object(host)
    kernel.read(found, 0, PAGE)  # the table of chunks is here now
    (backend,) = host.backends
    os.truncate(found.path, 0)
    os.truncate(found.path, found.size)
    backend.gate.clear()
    before = backend.reads

    with ThreadPoolExecutor(4) as pool:
        reads = [pool.submit(kernel.read, found, 0, PAGE) for _ in range(4)]
        until(lambda: backend.reads > before)
        backend.gate.set()
        assert len({each.result() for each in reads}) == 1
    assert backend.reads == before + 1


def test_a_backend_that_fails_gives_eio_and_is_asked_again(host, caplog):
    kernel, found, _ = data_object(host)
    kernel.read(found, 0, PAGE)
    os.truncate(found.path, 0)
    os.truncate(found.path, found.size)
    host.backends[0].fails = True
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        kernel.read(found, 0, PAGE)

    host.backends[0].fails = False
    assert kernel.read(found, 0, PAGE)
    assert "cannot be had" in caplog.text


def test_a_blob_that_cannot_be_opened_gives_eio_until_it_can(host, caplog, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    kernel, found, info = data_object(host, blobs=blobs)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        kernel.read(found, 0, PAGE)

    (blobs / info.blob_id).symlink_to(V6.blob)
    assert kernel.read(found, 0, PAGE)


@pytest.mark.parametrize("volume", ["d", "elsewhere"])
def test_what_is_not_known_is_not_there(host, caplog, volume):
    host.add()
    kernel = host.start()
    found = kernel.open(volume, "nobody")

    assert found.size == -errno.ENOENT
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(found.fd)


def test_an_object_is_opened_once(host, caplog):
    kernel, found, info = data_object(host)
    again = kernel.open("d", info.blob_id, found.object_id)

    assert again.size == -errno.EALREADY
    assert kernel.read(found, 0, PAGE)


def test_a_close_while_a_read_waits_lets_it_end(host):
    kernel, found, _ = data_object(host)
    kernel.read(found, 0, PAGE)
    os.truncate(found.path, 0)
    os.truncate(found.path, found.size)
    host.backends[0].gate.clear()
    before = host.backends[0].reads
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(kernel.read, found, 0, PAGE)
        until(lambda: host.backends[0].reads > before)
        kernel.close(found)
        host.backends[0].gate.set()
        assert read.result()
    until(lambda: not is_open(found.fd))
    assert host.pool.blobs() == []


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("offset", "length"), [(0, (1 << 64) - 1), (1 << 63, 1 << 62), ((1 << 64) - 1, 1)]
)
def test_a_read_that_leaves_the_blob_is_bounded(host, offset, length):
    kernel, found, _ = data_object(host)

    assert kernel.send(2, found, struct.pack("=QQ", offset, length)).wait(WAIT_S)
    assert found.path.stat().st_size <= -(-found.size // PAGE) * PAGE


def test_what_is_no_request_is_passed_over(host, caplog):
    kernel, found, _ = data_object(host)
    for noise in (b"x", b"y" * 100, bytes(16)):
        kernel.ours.send(noise)

    assert kernel.read(found, 0, PAGE)
    assert caplog.text.count("what is no request") == 3


def test_prefetch_fills_a_blob_that_nobody_reads(host):
    kernel, found, _ = data_object(
        host, enable=True, threads_count=2, merging_size=1 << 20, bandwidth_rate=0
    )

    until(lambda: not kernel.has_hole(found, 0, found.size))
    assert kernel.requests == 1


def test_work_dir_has_what_describes_the_blob_and_not_its_data(host):
    kernel, found, info = data_object(host)
    read_all(kernel, found)

    names = {path.name for path in host.work_dir.iterdir() if path.is_file()}
    assert names == {f"{info.blob_id}.blob.meta"}


def test_the_end_of_the_kernels_side_is_told(host, caplog):
    kernel = host.start()
    kernel.end()

    assert host.ended.wait(WAIT_S)


class TestDrop:
    """Having the kernel drop cache files."""

    def make(self, host, cookie="app"):
        folder = host.folder / "cache" / "Ierofs,shop" / fan_out("erofs,shop", cookie)
        folder.mkdir(parents=True)
        (folder / f"D{cookie}").touch()
        return folder / f"D{cookie}"

    def test_a_file_that_nobody_uses_is_dropped(self, host):
        kernel = host.start()
        path = self.make(host)
        here = Path.cwd()

        host.server.drop("app")
        host.server.drop("nobody")

        assert kernel.culled == [path]
        assert Path.cwd() == here

    def test_a_file_that_is_used_stays(self, host, caplog):
        kernel = host.start()
        path = self.make(host)
        kernel.in_use.add(path)

        with pytest.raises(OSError, match="failed to cull blob objects from fscache"):
            host.server.drop("app")
        assert path.exists()
