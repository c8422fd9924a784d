"""Mounts that come and go in one process leave nothing behind."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

from nydusd.cache.pool import BlobPool
from nydusd.config.load import parse_config
from nydusd.daemon.mounts import MountKind, MountRequest, Mounts
from nydusd.fs.vfs import Vfs
from tests.system.daemon import v1_config
from tests.system.images import GOLDEN, Image

MOUNTS = 200
WAIT_S = 60


def open_files() -> int:
    """Descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def mappings() -> int:
    """Mapped regions of this process."""
    return len(Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd"])
def test_two_hundred_mounts_leak_no_file_no_mapping_and_no_thread(tmp_path, name):
    image = Image(GOLDEN / name)
    config = parse_config(json.dumps(v1_config(image.blobs, tmp_path)))
    mounts = Mounts(Vfs(), BlobPool(), time.time())

    def mount_and_umount(path):
        mounts.mount(MountRequest(MountKind.RAFS, str(image.bootstrap), config, path))
        mounts.umount(path)

    mount_and_umount("/first")
    files, threads = open_files(), threading.active_count()
    mapped = mappings()
    for number in range(MOUNTS):
        mount_and_umount(f"/mount-{number % 7}")

    # Memory of the fetches is given back by a thread that ends with the next pause; until then
    # it may be there in either count.
    deadline = time.monotonic() + WAIT_S
    while open_files() > files or threading.active_count() > threads:
        assert time.monotonic() < deadline, (open_files(), threading.enumerate())
        time.sleep(0.05)
    assert mappings() < mapped + MOUNTS // 4  # the allocator may take some


@pytest.mark.slow
def test_mounts_of_one_image_share_their_blobs(tmp_path):
    image = Image(GOLDEN / "v6-zstd")
    config = parse_config(json.dumps(v1_config(image.blobs, tmp_path)))
    mounts = Mounts(Vfs(), BlobPool(), time.time())
    paths = [f"/mount-{number}" for number in range(MOUNTS)]
    for path in paths:
        mounts.mount(MountRequest(MountKind.RAFS, str(image.bootstrap), config, path))
    held = open_files()
    for path in paths:
        mounts.umount(path)

    assert held - open_files() < MOUNTS  # a blob and its cache are open once, not once a mount
