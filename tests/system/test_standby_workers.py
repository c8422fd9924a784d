"""Workers beyond the processors stand by, and step in where one has to wait for a disk."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.images import GOLDEN, Image

pytestmark = [pytest.mark.root, pytest.mark.fuse]


def forget_pages(path: Path) -> None:
    """Drop what the page cache has of *path*: the next read of it waits for the disk."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def read_tree(mountpoint: Path) -> dict[Path, bytes]:
    files = [path for path in mountpoint.rglob("*") if path.is_file() and not path.is_symlink()]
    with ThreadPoolExecutor(8) as pool:
        return dict(zip(files, pool.map(Path.read_bytes, files), strict=True))


def test_one_processor_serves_readers_of_a_cache_that_left_memory(serve, tmp_path):
    allowed = os.sched_getaffinity(0)
    image = Image(GOLDEN / "v6-zstd")
    with serve(image) as daemon:
        expected = read_tree(daemon.mountpoint)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        with serve(image, options=("--fuse-threads", "4")) as daemon:
            for _ in range(5):
                for path in (tmp_path / "cache").iterdir():
                    forget_pages(path)
                Path("/proc/sys/vm/drop_caches").write_text("3")
                assert read_tree(daemon.mountpoint) == expected
        assert daemon.wait() == 0, daemon.text
    finally:
        os.sched_setaffinity(0, allowed)
