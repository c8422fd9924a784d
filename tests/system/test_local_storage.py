"""Broken local storage: corrupt blobs, full and read-only cache disks; the rest goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.daemon import mount_id
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
FULL_DISK_KIB = 96  # room for the small files of a cache, not for its data


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small tmpfs to keep a cache on."""
    path = tmp_path / "disk"
    path.mkdir()
    options = f"size={FULL_DISK_KIB}k"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "cache", path], check=True)
    yield path
    while mount_id(path) is not None:
        subprocess.run(["umount", "-l", path], check=True)


def remount_read_only(path: Path) -> None:
    """Let nothing be written to the file system at *path* from now on."""
    subprocess.run(["mount", "-o", "remount,ro", path], check=True)


def fill(disk: Path) -> None:
    """Leave no space at all on *disk*."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_reads_go_on_with_a_full_cache_disk(serve, now, disk, name, compressed):
    image = Image(GOLDEN / name)
    with serve(image, cache=disk / "cache", compressed=compressed) as daemon:
        fill(disk)
        for _ in range(2):
            assert not differences(daemon.mountpoint, image.manifest, now)


@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_an_image_is_served_from_a_read_only_cache_folder(serve, now, disk, name):
    (disk / "cache").mkdir()
    remount_read_only(disk)
    image = Image(GOLDEN / name)
    with serve(image, cache=disk / "cache") as daemon:
        for _ in range(2):
            assert not differences(daemon.mountpoint, image.manifest, now)


@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_a_complete_cache_is_used_from_a_read_only_folder(serve, now, tmp_path, name):
    image = Image(GOLDEN / name)
    with serve(image) as daemon:
        assert not differences(daemon.mountpoint, image.manifest, now)
    cache = tmp_path / "cache"
    subprocess.run(["mount", "--bind", cache, cache], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", cache], check=True)
    try:
        with serve(image) as daemon:
            assert not differences(daemon.mountpoint, image.manifest, now)
    finally:
        subprocess.run(["umount", "-l", cache], check=True)


def corrupt_one_chunk(image: Image, blobs: Path) -> None:
    """Copy the blob of *image* to *blobs* with the header of its second zstd frame destroyed."""
    blobs.mkdir()
    data = bytearray(image.blob.read_bytes())
    place = [match.start() for match in re.finditer(re.escape(ZSTD_MAGIC), data)][1]
    data[place : place + len(ZSTD_MAGIC)] = bytes(len(ZSTD_MAGIC))
    (blobs / image.blob.name).write_bytes(data)


@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_a_corrupt_chunk_is_eio_for_the_files_that_need_it_alone(serve, now, tmp_path, name):
    image = Image(GOLDEN / name)
    corrupt_one_chunk(image, tmp_path / "blobs")
    manifest = image.manifest
    # The second chunk is of this file; others have the same content, and so the same chunk.
    content = manifest["/file-20000"]["sha256"]
    sharing = sorted(path for path, entry in manifest.items() if entry.get("sha256") == content)
    with serve(image, blobs=tmp_path / "blobs") as daemon:
        for _ in range(2):
            found = differences(daemon.mountpoint, image.manifest, now)
            assert found == [f"{path!a}: Input/output error" for path in sharing]
        assert daemon.process.poll() is None


def test_a_chunk_that_is_not_what_its_digest_promises_is_eio(serve, now, tmp_path):
    """Bytes of an uncompressed blob: only the digest can tell."""
    image = Image(GOLDEN / "v5-none")
    blobs = tmp_path / "blobs"
    shutil.copytree(image.blobs, blobs)
    data = bytearray(image.blob.read_bytes())
    place = data.index(b"leaf\n")
    data[place : place + 5] = b"LEAF\n"
    (blobs / image.blob.name).write_bytes(data)
    with serve(image, blobs=blobs, validate=True) as daemon:
        leaf = daemon.mountpoint / "deep" / "er" / "still" / "leaf"
        with pytest.raises(OSError, match="Input/output error") as raised:
            leaf.read_bytes()
        assert raised.value.errno == errno.EIO

        found = differences(daemon.mountpoint, image.manifest, now)
        assert found == ["'/deep/er/still/leaf': Input/output error"]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_truncated_blob_is_eio_and_not_the_end_of_the_daemon(serve, now, tmp_path, compressed):
    image = Image(GOLDEN / "v5-zstd")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    half = image.blob.read_bytes()[: image.blob.stat().st_size // 2]
    (blobs / image.blob.name).write_bytes(half)
    with serve(image, blobs=blobs, compressed=compressed) as daemon:
        found = differences(daemon.mountpoint, image.manifest, now)

        assert found
        assert not [line for line in found if not line.endswith(": Input/output error")]
        assert daemon.process.poll() is None


def test_a_cache_file_that_is_cut_while_mapped_is_fetched_again_or_eio(serve, now, tmp_path):
    """Whatever is answered, it is not other content, and the daemon lives."""
    image = Image(GOLDEN / "v6-zstd")
    with serve(image) as daemon:
        assert not differences(daemon.mountpoint, image.manifest, now)
        for path in (tmp_path / "cache").glob("*.blob.data"):
            with path.open("r+b") as file:
                file.truncate(0)
        drop_caches()
        found = differences(daemon.mountpoint, image.manifest, now)

        assert not [line for line in found if not line.endswith(": Input/output error")]
        assert daemon.process.poll() is None


def drop_caches() -> None:
    """Have the kernel ask the daemon again for what it has cached of the mount."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def cut(path: Path) -> None:
    os.truncate(path, 0)


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(bytes(path.stat().st_size))
    other.replace(path)


def flip(path: Path) -> None:
    """Change bytes all over the file, in place."""
    data = bytearray(path.read_bytes())
    for at in range(0, len(data), 101):
        data[at] ^= 0x5A
    with path.open("r+b") as file:
        file.write(data)


def wreck(folder: Path, suffix: str, how: Callable[[Path], None]) -> None:
    """Do *how* to the only file with *suffix*, found by any of its names."""
    done = set()
    for path in sorted(folder.glob(f"*{suffix}")):
        if path.stat().st_ino not in done:
            done.add(path.stat().st_ino)
            how(path)
            if path.exists():
                done.add(path.stat().st_ino)


DAMAGES = {"cut": cut, "halved": halve, "gone": Path.unlink, "replaced": replace, "flipped": flip}


def damage_cases() -> Iterator[tuple[str, str, str, str]]:
    """Image, kind of cache, file and damage, where something can tell that it is damaged."""
    for how in DAMAGES:
        yield "v6-zstd", "plain", "chunk_map", how
        yield "v5-zstd", "compressed", "chunk_map", how
        yield "v6-zstd", "plain", ".blob.meta", how
        yield "v5-zstd", "validate", ".blob.data", how
        if how != "flipped":  # only a digest can tell
            for name in ("v5-zstd", "v6-zstd"):
                yield name, "plain", ".blob.data", how
                yield name, "compressed", ".blob.raw", how


@pytest.mark.parametrize(("name", "kind", "file", "damage"), list(damage_cases()))
def test_no_damage_to_a_cache_file_is_served(
    serve, now, tmp_path, caplog, name, kind, file, damage
):
    """Right bytes or EIO, and no dead daemon; files that it holds open serve on when they go."""
    image = Image(GOLDEN / name)
    settings = {"compressed": kind == "compressed", "validate": kind == "validate"}
    cache = tmp_path / "cache"
    with serve(image, **settings) as daemon:
        half = sorted(image.manifest)[::2]
        for path in half:
            if "sha256" in image.manifest[path]:
                (daemon.mountpoint / path[1:]).read_bytes()
        wreck(cache, file, DAMAGES[damage])
        drop_caches()
        found = differences(daemon.mountpoint, image.manifest, now)
        assert not [line for line in found if not line.endswith(": Input/output error")]
        if damage in ("gone", "replaced"):
            assert not found
        assert daemon.process.poll() is None
