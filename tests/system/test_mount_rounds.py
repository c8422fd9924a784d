"""Many mounts in one daemon, over its life and at one time: nothing stale, nothing left over.

`NYDUSD_TEST_ROUNDS` and `NYDUSD_TEST_MOUNTS` make the long form of it.
"""

from __future__ import annotations

import contextlib
import operator
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.system.control import WAIT_S, ask, await_rest, mount_body
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.slow]

ROUNDS = int(os.environ.get("NYDUSD_TEST_ROUNDS", "24"))
MOUNTS = int(os.environ.get("NYDUSD_TEST_MOUNTS", "300"))
IMAGES = [Image(GOLDEN / name) for name in ("v6-zstd", "v5-lz4", "v5-zstd")]
PATHS = ("/a", "/b/c", "/b/d/e")
GROWTH_KIB = 4096  # the allocator's own, and what the first rounds make


def change(sock, method, path, body=None):
    reply = ask(sock, method, "/api/v1/mount", body, mountpoint=path)
    assert reply.status == 204, reply.body


def state_of(daemon):
    status = daemon.status()
    # Of files only: stacks and arenas of threads come and stay, and VmRSS counts what is in them.
    maps = Path(f"/proc/{daemon.pid}/maps").read_text().splitlines()
    mapped = sum(len(line.split(maxsplit=5)) == 6 and "/" in line for line in maps)
    return daemon.open_files(), status["Threads"], mapped, status["VmRSS"]


def test_rounds_of_mount_compare_umount_leave_nothing_over(shared, now, tmp_path):
    daemon, sock = shared
    await_rest(daemon.pid, sock)
    bodies = [mount_body(image, tmp_path / "cache") for image in IMAGES]
    settled = (0, 0, 0, 0)
    for number in range(ROUNDS):
        image, body = IMAGES[number % 3], bodies[number % 3]
        path = PATHS[number // 2 % 3]
        place = daemon.mountpoint / path[1:]
        change(sock, "POST", path, body)
        assert not differences(place, image.manifest, now)
        with (place / "file-4097").open("rb") as file:
            change(sock, "DELETE", path)
            assert list(place.iterdir()) == [], "stale names"
            with contextlib.suppress(FileNotFoundError):  # the kernel may ask for its size again
                assert len(file.read()) in (0, 4097)
        if ROUNDS // 4 <= number <= ROUNDS // 2:
            settled = tuple(map(max, settled, state_of(daemon)))
    most = (
        settled[0],
        settled[1] + 2,  # idle ones of the fetching pool end by themselves
        settled[2] + ROUNDS // 4,
        settled[3] + GROWTH_KIB,
    )
    # What the last reader kept open is closed a moment after it has gone.
    deadline = time.monotonic() + WAIT_S
    while not all(map(operator.le, found := state_of(daemon), most)):
        assert time.monotonic() < deadline, (found, most)
        time.sleep(0.05)
    assert ask(sock, "GET", "/api/v1/daemon").json["backend_collection"] == {}
    assert ask(sock, "GET", "/api/v1/metrics").status == 404


def test_more_than_255_mounts_at_one_time_are_all_readable(shared, now, tmp_path):
    daemon, sock = shared
    bodies = [mount_body(image, tmp_path / "cache") for image in IMAGES]
    content = [image.manifest["/file-20000"]["sha256"] for image in IMAGES]
    assert len(set(content)) == 1
    for number in range(MOUNTS):
        change(sock, "POST", f"/m/{number}", bodies[number % 3])
    nodes = set()
    for number in range(MOUNTS):
        place = daemon.mountpoint / "m" / str(number)
        assert len((place / "file-20000").read_bytes()) == 20000
        nodes.add((place / "file-20000").stat().st_ino)
    assert len(nodes) == MOUNTS
    info = ask(sock, "GET", "/api/v1/daemon").json
    assert len(info["backend_collection"]) == MOUNTS
    last = daemon.mountpoint / "m" / str(MOUNTS - 1)
    assert not differences(last, IMAGES[(MOUNTS - 1) % 3].manifest, now)
    assert ask(sock, "GET", "/api/v1/metrics", id=f"/m/{MOUNTS - 1}").json["data_read"] >= 20000
    for number in range(MOUNTS):
        change(sock, "DELETE", f"/m/{number}")

    assert [list(path.iterdir()) for path in (daemon.mountpoint / "m").iterdir()] == [[]] * MOUNTS


def test_an_image_that_cannot_be_read_hurts_nobody(shared, now, tmp_path):
    daemon, sock = shared
    change(sock, "POST", "/good", mount_body(IMAGES[0], tmp_path / "cache"))
    broken = tmp_path / "bootstrap"
    for kept in (0, 100, 1100, 5000, 9000):
        broken.write_bytes(IMAGES[0].bootstrap.read_bytes()[:kept])
        body = {**mount_body(IMAGES[0], tmp_path / "cache"), "source": str(broken)}
        assert ask(sock, "POST", "/api/v1/mount", body, mountpoint="/bad").status == 500
        assert ask(sock, "PUT", "/api/v1/mount", body, mountpoint="/good").status == 500
    assert not differences(daemon.mountpoint / "good", IMAGES[0].manifest, now)


def test_a_remount_shows_the_new_image_and_keeps_open_files(shared, now, tmp_path):
    daemon, sock = shared
    place = daemon.mountpoint / "x"
    change(sock, "POST", "/x", mount_body(IMAGES[1], tmp_path / "cache"))
    with (place / "file-20000").open("rb") as file:
        first = file.read(100)
        for image in (IMAGES[2], IMAGES[1]):  # two of version 5: the same inode numbers
            change(sock, "PUT", "/x", mount_body(image, tmp_path / "cache"))
            assert not differences(place, image.manifest, now)
        file.seek(0)

        assert file.read(100) == first


def test_umount_while_many_read(shared, now, tmp_path):
    daemon, sock = shared
    body = mount_body(IMAGES[0], tmp_path / "cache")
    place = daemon.mountpoint / "busy"
    stop = threading.Event()
    wrong = []

    def read_again_and_again():
        while not stop.is_set():
            try:
                if len(data := (place / "file-20000").read_bytes()) != 20000:
                    wrong.append(len(data))
            except OSError:
                continue

    threads = [threading.Thread(target=read_again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            change(sock, "POST", "/busy", body)
            change(sock, "DELETE", "/busy")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    change(sock, "POST", "/busy", body)

    assert not differences(place, IMAGES[0].manifest, now)
    # a read that is cut off by the umount ends with what it has
    assert all(0 <= size < 20000 for size in wrong)


@pytest.fixture
def two_images(tmp_path):
    """Two images with names of their own, and one file of the same inode number and other bytes."""
    made = []
    for number, name in enumerate(("one", "two")):
        image = Image(tmp_path / name)
        tree = tmp_path / f"tree-{name}"
        (tree / "common").mkdir(parents=True)
        image.blobs.mkdir(parents=True)
        (tree / "common" / "file").write_bytes(bytes([65 + number]) * 5000)
        (tree / f"only-{name}").write_text(name)
        subprocess.run(
            [
                *(sys.executable, "-m", "nydusd.cli.nydus_image", "create", "-l", "error"),
                *("--bootstrap", image.folder / "bootstrap", "--blob-dir", image.blobs, tree),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        made.append(image)
    return made


def look(place):
    """Everything that a mount of one of the two images shows, and that it lacks."""
    missing = [name for name in ("only-one", "only-two") if not (place / name).exists()]
    return (
        sorted(path.name for path in place.iterdir()),
        missing,
        (place / "common" / "file").read_bytes()[:1],
    )


SHOWN = [(["common", "only-one"], ["only-two"], b"A"), (["common", "only-two"], ["only-one"], b"B")]


@pytest.mark.parametrize("path", ["/", "/x"])
@pytest.mark.parametrize("how", ["umount", "remount"])
def test_nothing_of_the_image_before_is_seen(shared, two_images, tmp_path, path, how):
    daemon, sock = shared
    place = daemon.mountpoint / path[1:]
    bodies = [mount_body(image, tmp_path / "cache") for image in two_images]
    change(sock, "POST", path, bodies[0])
    assert look(place) == SHOWN[0]
    with (place / "common" / "file").open("rb") as held:  # keeps the kernel's inode
        assert held.read(1) == b"A"
        for number in (1, 0, 1):
            if how == "remount":
                change(sock, "PUT", path, bodies[number])
            else:
                change(sock, "DELETE", path)
                assert list(place.iterdir()) == []
                change(sock, "POST", path, bodies[number])

            assert look(place) == SHOWN[number]
