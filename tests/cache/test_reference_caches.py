"""Cache directories that the reference wrote, read and completed; and what we write beside them."""

import hashlib
import tarfile
from pathlib import Path

import pytest

from nydusd.cache.pool import open_device
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Backend, Cache, FileCache, LocalFs
from nydusd.rafs.load import load_bootstrap
from tests.system.images import GOLDEN, Image

CACHES = GOLDEN.parent / "caches"
COMPLETE = ["v6-zstd-plain", "v6-zstd-compressed"]
NAMES = ["v5-zstd-plain", "v5-zstd-compressed", *COMPLETE]


def unpack(name: str, folder: Path) -> Path:
    folder.mkdir()
    with tarfile.open(CACHES / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder


def read_all(name: str, folder: Path) -> int:
    """Read every file of the image *name* with its cache in *folder*; bytes that were fetched."""
    image = Image(GOLDEN / name.rpartition("-")[0])
    bootstrap = load_bootstrap(image.bootstrap)
    opened = open_device(
        bootstrap,
        Backend("localfs", localfs=LocalFs(dir=str(image.blobs))),
        Cache(
            "blobcache",
            compressed=name.endswith("compressed"),
            filecache=FileCache(work_dir=str(folder)),
        ),
    )
    for path, entry in image.manifest.items():
        if "sha256" in entry:
            inode = bootstrap.find(path.encode(errors="surrogateescape"))
            content = read_spans(opened, list(bootstrap.chunk_spans(inode)))
            assert hashlib.sha256(content).hexdigest() == entry["sha256"], path
    fetched = opened.snapshot()["backend_bytes"]
    opened.close()
    return fetched


def content(folder: Path, suffix: str) -> bytes:
    (path,) = folder.glob(f"*{suffix}")
    return path.read_bytes()


@pytest.mark.parametrize("map_name", ["chunk_map", "blob.data.chunk_map"])
@pytest.mark.parametrize("name", NAMES)
def test_what_the_reference_has_kept_is_not_fetched_again(tmp_path, name, map_name):
    folder = unpack(name, tmp_path / "cache")
    (path,) = folder.glob("*.chunk_map")
    path.rename(folder / f"{path.name.partition('.')[0]}.{map_name}")
    whole = read_all(name, tmp_path / "fresh")
    fetched = read_all(name, folder)
    assert fetched == 0 if name in COMPLETE else 0 < fetched < whole
    assert read_all(name, folder) == 0
    kind = ".blob.raw" if name.endswith("compressed") else ".blob.data"
    assert content(folder, kind) == content(tmp_path / "fresh", kind)


@pytest.mark.parametrize("name", COMPLETE)
def test_what_we_write_is_what_the_reference_writes_byte_by_byte(tmp_path, name):
    theirs = unpack(name, tmp_path / "theirs")
    read_all(name, tmp_path / "ours")
    kind = ".blob.raw" if name.endswith("compressed") else ".blob.data"
    assert content(tmp_path / "ours", kind) == content(theirs, kind)
    assert content(tmp_path / "ours", ".blob.meta") == content(theirs, ".blob.meta")
    maps = list((tmp_path / "ours").glob("*.chunk_map"))
    assert len(maps) == 2
    for path in maps:
        assert path.read_bytes() == content(theirs, ".chunk_map")
