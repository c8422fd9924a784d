"""A daemon begins and ends as told: mounts, signals, umount, and starts that must fail."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time

import pytest

from tests.system.daemon import mount_id
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]

IMAGE = Image(GOLDEN / "v6-zstd")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_daemon_and_its_mount(serve, number):
    daemon = serve(IMAGE)
    daemon.start()
    os.kill(daemon.pid, number)

    assert daemon.wait() == 0, daemon.text
    assert mount_id(daemon.mountpoint) is None


def test_an_open_file_does_not_delay_the_end(serve):
    daemon = serve(IMAGE)
    daemon.start()
    file = os.open(daemon.mountpoint / "file-20000", os.O_RDONLY)
    try:
        os.read(file, 1)
        os.kill(daemon.pid, signal.SIGTERM)

        assert daemon.wait() == 0, daemon.text
        assert mount_id(daemon.mountpoint) is None
    finally:
        with contextlib.suppress(OSError):  # the kernel tells that nobody answers
            os.close(file)


@pytest.mark.parametrize("how", [["umount"], ["umount", "-l"]], ids=" ".join)
def test_umount_ends_the_daemon(serve, how):
    daemon = serve(IMAGE)
    daemon.start()
    subprocess.run([*how, daemon.mountpoint], check=True)

    assert daemon.wait() == 0, daemon.text


def test_an_aborted_connection_ends_the_daemon(serve, tmp_path):
    daemon = serve(IMAGE)
    daemon.start()
    connection = os.minor(daemon.mountpoint.stat().st_dev)
    control = tmp_path / "control"
    control.mkdir()
    subprocess.run(["mount", "-t", "fusectl", "control", control], check=True)
    try:
        (control / str(connection) / "abort").write_text("1")
    finally:
        subprocess.run(["umount", control], check=True)

    daemon.wait()
    daemon.unmount()


def test_a_lazily_unmounted_tree_is_served_until_its_last_file_is_closed(serve):
    daemon = serve(IMAGE)
    daemon.start()
    with (daemon.mountpoint / "file-20000").open("rb") as file:
        subprocess.run(["umount", "-l", daemon.mountpoint], check=True)
        assert len(file.read()) == 20_000

    assert daemon.wait() == 0, daemon.text


def test_without_a_bootstrap_an_empty_root_is_served(serve):
    with serve(None) as daemon:
        assert list(daemon.mountpoint.iterdir()) == []
        assert daemon.mountpoint.stat().st_mode & 0o7777 == 0o777


def test_an_image_appears_at_its_virtual_mountpoint(serve, now):
    with serve(IMAGE, options=("--virtual-mountpoint", "/a/b")) as daemon:
        assert [path.name for path in daemon.mountpoint.iterdir()] == ["a"]
        assert [path.name for path in (daemon.mountpoint / "a").iterdir()] == ["b"]
        inside = daemon.mountpoint / "a" / "b"

        assert not differences(inside, IMAGE.manifest, now)


def test_the_daemon_runs_without_the_fuse_word_and_with_a_localfs_dir(
    nydusd, mountpoint, tmp_path, now, serve
):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / IMAGE.blob.name).write_bytes(IMAGE.blob.read_bytes())
    daemon = serve(None)
    start = len(nydusd.argv)
    daemon.argv = [
        *nydusd.argv,
        *daemon.argv[start + 1 :],
        "-B",
        str(IMAGE.bootstrap),
        "-D",
        str(blobs),
    ]

    with daemon:
        assert not differences(daemon.mountpoint, IMAGE.manifest, now)


def assert_refused(daemon):
    """*daemon* ends with 1, has mounted nothing and said something."""
    daemon.launch()

    assert daemon.wait() == 1
    assert mount_id(daemon.mountpoint) is None
    assert daemon.text.strip()
    assert "Traceback" not in daemon.text


def test_a_missing_blob_is_refused_at_start(serve, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    daemon = serve(IMAGE, blobs=empty)

    assert_refused(daemon)
    assert IMAGE.blob.name in daemon.text


@pytest.mark.parametrize("kept", [0, 100, 1024, 4096, 9000])
@pytest.mark.parametrize("name", ["v5-lz4", "v6-zstd"])
def test_a_truncated_bootstrap_is_refused_at_start(serve, tmp_path, name, kept):
    image = Image(tmp_path / "image")
    image.folder.mkdir()
    (image.folder / "bootstrap").write_bytes((GOLDEN / name / "bootstrap").read_bytes()[:kept])
    daemon = serve(image, blobs=GOLDEN / name / "blobs")

    assert_refused(daemon)


def test_a_missing_mountpoint_is_refused_at_start(serve):
    daemon = serve(IMAGE)
    daemon.argv[daemon.argv.index("-M") + 1] += "/missing"

    assert_refused(daemon)


def test_a_thousand_opens_leave_no_file_and_no_thread_open(serve):
    with serve(IMAGE) as daemon:
        names = [path for path in daemon.mountpoint.rglob("*") if path.is_file()]
        for path in names:
            path.read_bytes()
        files, threads = daemon.open_files(), daemon.status()["Threads"]
        for number in range(1000):
            with names[number % len(names)].open("rb") as file:
                file.read(1)

        # The last file is closed, and idle threads end, a moment later.
        deadline = time.monotonic() + 60
        while daemon.open_files() > files or daemon.status()["Threads"] > threads:
            assert time.monotonic() < deadline, (daemon.open_files(), daemon.status())
            time.sleep(0.05)
