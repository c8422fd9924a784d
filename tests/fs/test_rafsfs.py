"""RAFS as a file system, asked through the server: what differs from what the image says."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import stat
import struct
from pathlib import Path

import pytest

from nydusd.cache.pool import BlobPool
from nydusd.config.model import Backend, Cache, FileCache, LocalFs
from nydusd.fs.rafsfs import RafsFs
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from nydusd.rafs.load import load_bootstrap
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel

IMAGES = Path(__file__).resolve().parent.parent / "golden" / "images"
START_TIME = 1_700_000_000
FOR_EVER = 1 << 32


class Image:
    """One golden image behind a server, read through a cache in *work*."""

    def __init__(self, folder: Path, work: Path, **options):
        self.manifest = json.loads(gzip.decompress((folder / "manifest.json.gz").read_bytes()))
        self.bootstrap = load_bootstrap(folder / "bootstrap")
        self.pool = BlobPool()
        backend = Backend("localfs", localfs=LocalFs(dir=str(folder / "blobs")))
        cache = Cache("blobcache", filecache=FileCache(str(work)))
        self.device = self.pool.open_device(self.bootstrap, backend, cache, 1 << 20)
        options = {"start_time": START_TIME, **options}
        vfs = Vfs()
        vfs.mount(RafsFs(self.bootstrap, self.device, **options), "/")
        self.deferred = DeferredReads(vfs)
        self.deferred.start()
        self.kernel = Kernel(Server(vfs, self.deferred, zero_message_open=True))

    def close(self):
        self.kernel.close()
        self.deferred.stop(-errno.EIO)
        self.device.close()

    def lookup(self, path: str) -> tuple[int, int, dict[str, int]]:
        node, valid, attr = wire.ROOT_NODE, 0, {}
        for name in os.fsencode(path).split(b"/"):
            if name:
                answer = self.kernel.ask(wire.LOOKUP, name + b"\0", node)
                node, valid, attr = wire.entry_of(answer)
        return node, valid, attr

    def paths(self, kind: int) -> list[str]:
        return [path for path, entry in self.manifest.items() if stat.S_IFMT(entry["mode"]) == kind]


@pytest.fixture(params=["v5-none", "v5-zstd", "v6-none", "v6-zstd"])
def image(request, tmp_path):
    image = Image(IMAGES / request.param, tmp_path)
    yield image
    image.close()


def test_the_root_is_0755_whatever_the_image_says(image):
    attr = wire.attr_of(image.kernel.ask(wire.GETATTR, bytes(16))[16:])

    assert attr["mode"] == stat.S_IFDIR | 0o755
    assert attr["ino"] == 1 << 56 | image.bootstrap.root_ino
    assert attr["nlink"] == image.manifest["/"]["nlink"]


def test_attributes_are_those_of_the_image_and_last_for_ever(image):
    for path in image.paths(stat.S_IFREG):
        _, valid, attr = image.lookup(path)
        entry = image.manifest[path]
        wanted = [entry[name] for name in ("mode", "size", "uid", "gid", "nlink")]
        assert [attr[name] for name in ("mode", "size", "uid", "gid", "nlink")] == wanted
        assert valid == FOR_EVER
        assert attr["mtime"] == (entry["mtime"][0] or START_TIME)
        assert (attr["atime"], attr["ctime"], attr["blksize"]) == (0, 0, 4096)


def test_a_missing_name_may_be_remembered(image):
    assert image.lookup("nothing")[:2] == (0, FOR_EVER)


def test_a_name_over_255_bytes_is_too_long(image):
    with pytest.raises(OSError, match="File name too long"):
        image.lookup("x" * 256)


@pytest.mark.parametrize("name", [b"/", b"a/b", b""])
def test_a_name_that_is_none_is_einval(image, name):
    with pytest.raises(OSError, match="Invalid argument"):
        image.kernel.ask(wire.LOOKUP, name + b"\0")


def test_listings_with_and_without_attributes_name_the_same(image):
    plain = wire.names_of(image.kernel.ask(wire.READDIR, wire.read_arg(0, 1 << 16)))
    plus = wire.names_of(image.kernel.ask(wire.READDIRPLUS, wire.read_arg(0, 1 << 16)), plus=True)

    assert plain == plus
    names = sorted(os.fsdecode(name) for name, *_ in plain if name not in (b".", b".."))
    assert names == sorted(path[1:] for path in image.manifest if path.count("/") == 1)[1:]
    for name, ino, _, kind in plain:
        if name not in (b".", b".."):
            node, _, attr = image.lookup(os.fsdecode(name))
            assert (ino, kind) == (node, attr["mode"] >> 12)


def test_open_is_never_asked_again(image):
    for opcode in (wire.OPEN, wire.OPENDIR):
        with pytest.raises(OSError, match="Function not implemented"):
            image.kernel.ask(opcode, bytes(8))


def test_a_read_stops_at_the_end_of_the_file(image):
    path = max(image.paths(stat.S_IFREG), key=lambda path: image.manifest[path]["size"])
    size = image.manifest[path]["size"]
    node = image.lookup(path)[0]
    for _ in range(2):  # fetched, then from the cache
        end = image.kernel.ask(wire.READ, wire.read_arg(size - 10, 4096), node)
        assert len(end) == 10
        assert image.kernel.ask(wire.READ, wire.read_arg(size, 4096), node) == b""
        assert image.kernel.ask(wire.READ, wire.read_arg(2**63, 4096), node) == b""


def test_a_link_is_read_and_nothing_else(image):
    for path in image.paths(stat.S_IFLNK):
        target = os.fsencode(image.manifest[path]["target"])
        assert image.kernel.ask(wire.READLINK, node=image.lookup(path)[0]) == target
    with pytest.raises(OSError, match="Invalid argument"):
        image.kernel.ask(wire.READLINK)


def test_statfs_shows_the_number_of_inodes_alone(image):
    fields = struct.unpack("=5Q4I24x", image.kernel.ask(wire.STATFS))
    assert fields == (0, 0, 0, image.bootstrap.inodes_count, 0, 512, 255, 0, 0)


def test_extended_attributes_are_those_of_the_image(image):
    for path, entry in image.manifest.items():
        node = image.lookup(path)[0]
        names = [name.encode() for name in entry["xattrs"]]
        listed = image.kernel.ask(wire.LISTXATTR, struct.pack("=II", 65536, 0), node)
        assert sorted(listed.split(b"\0")[:-1]) == sorted(names)
        length = struct.unpack("=II", image.kernel.ask(wire.LISTXATTR, bytes(8), node))[0]
        assert length == len(listed)
        for name, value in entry["xattrs"].items():
            arg = struct.pack("=II", 65536, 0) + name.encode() + b"\0"
            assert image.kernel.ask(wire.GETXATTR, arg, node).hex() == value
    with pytest.raises(OSError, match="No data available"):
        image.kernel.ask(wire.GETXATTR, bytes(8) + b"user.none\0")


def test_a_node_that_the_image_does_not_have_is_refused(image):
    with pytest.raises(OSError, match=r"No such file|Input/output"):
        image.kernel.ask(wire.GETATTR, bytes(16), node=1 << 56 | (1 << 40))


def test_a_blob_that_is_gone_is_eio_for_that_read_alone(tmp_path, caplog):
    folder = tmp_path / "image"
    shutil.copytree(IMAGES / "v6-zstd", folder)
    (tmp_path / "cache").mkdir()
    image = Image(folder, tmp_path / "cache")
    try:
        for blob in (folder / "blobs").iterdir():
            os.truncate(blob, 100)
        path = max(image.paths(stat.S_IFREG), key=lambda path: image.manifest[path]["size"])
        node = image.lookup(path)[0]
        with pytest.raises(OSError, match="Input/output error"):
            image.kernel.ask(wire.READ, wire.read_arg(0, 4096), node)
        assert image.lookup(path)[0] == node
        assert caplog.records
    finally:
        image.close()
