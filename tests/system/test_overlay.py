"""The writable overlay in real mounts: beside a plain copy, the kernel's overlayfs, and kill -9."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import random
import shutil
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.control import ask, wait_for
from tests.system.daemon import Command, Daemon, mount_id
from tests.system.overlay_moves import Moves, random_tree
from tests.system.overlay_run import Layers, copy_tree, has_overlayfs, lacking, names_in
from tests.system.readback import Manifest, manifest_of
from tests.system.succession import Succession

pytestmark = [pytest.mark.root, pytest.mark.fuse]

SEQUENCES = int(os.environ.get("NYDUSD_OVERLAY_SEQUENCES", "200"))
MOVES = 30
KILLS = int(os.environ.get("NYDUSD_OVERLAY_KILLS", "6"))
SEED = 20261124


def comparable(manifest: Manifest) -> Manifest:
    """What two file systems must agree on: times of a changed file and a folder's links differ."""
    for entry in manifest.values():
        del entry["mtime"]
        if stat.S_ISDIR(entry["mode"]):
            del entry["nlink"]
    del manifest["/"]  # the mountpoint's own
    return manifest


@pytest.fixture(autouse=True)
def _able(tmp_path: Path) -> None:
    if reason := lacking(tmp_path):
        pytest.skip(reason)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree with one of everything."""
    root = tmp_path / "tree"
    (root / "folder/deep").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "big").write_bytes(random.Random(SEED).randbytes(3_000_000) + bytes(2_000_000) + b"end")
    (root / "folder/file").write_bytes(b"from the image\n")
    (root / "folder/deep/file").write_bytes(b"deep\n")
    os.link(root / "folder/file", root / "other-name")
    (root / "link").symlink_to("folder/file")
    os.setxattr(root / "big", "user.colour", b"blue")
    os.chown(root / "big", 1000, 1001)
    (root / "big").chmod(0o4751)
    os.utime(root / "big", ns=(10**18, 10**18 + 5))
    return root


@pytest.fixture
def layers(tmp_path: Path, tree: Path) -> Iterator[Layers]:
    """An overlay of *tree*, not mounted."""
    made = Layers(tmp_path / "layers", tree)
    yield made
    assert mount_id(made.mountpoint) is None, "a mount was left behind"


def test_random_operations_do_what_a_plain_directory_does(tmp_path: Path, nydusd: Command) -> None:
    # Each sequence has a directory of its own, with a tree of its own.
    tree, twin = tmp_path / "tree", tmp_path / "twin"
    for folder in (tree, twin):
        folder.mkdir()
    for number in range(SEQUENCES):
        random_tree(random.Random(SEED + number), tree / f"{number}")
    copy_tree(tree, twin)
    layers = Layers(tmp_path / "layers", tree)
    with layers.daemon(nydusd):
        for number in range(SEQUENCES):
            rng = random.Random(~(SEED + number))
            Moves(rng, layers.mountpoint / f"{number}", twin / f"{number}").run(MOVES)

        expected = comparable(manifest_of(twin))
        assert comparable(manifest_of(layers.mountpoint)) == expected

    with layers.daemon(nydusd):
        assert comparable(manifest_of(layers.mountpoint)) == expected

    if not has_overlayfs():
        pytest.skip("all but the last step: no overlayfs in this kernel")
    with layers.kernel_mount() as kernel:
        assert comparable(manifest_of(kernel)) == expected


@pytest.mark.skipif(not has_overlayfs(), reason="no overlayfs in this kernel")
def test_what_the_kernels_overlayfs_wrote_is_read_alike(tmp_path: Path, nydusd: Command) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(10):
        random_tree(random.Random(SEED + number), tree / f"{number}")
    twin = tmp_path / "twin"
    twin.mkdir()
    copy_tree(tree, twin)
    layers = Layers(tmp_path / "layers", tree)
    with layers.kernel_mount() as kernel:
        for number in range(10):
            shutil.rmtree(kernel / f"{number}", ignore_errors=number % 2 == 0)
            (kernel / f"{number}").mkdir()
            (kernel / f"{number}/new").write_bytes(b"new")
            (kernel / f"{number}/dir").mkdir()
        expected = comparable(manifest_of(kernel))

    with layers.daemon(nydusd):
        assert comparable(manifest_of(layers.mountpoint)) == expected


def test_copy_up_keeps_everything_but_what_is_changed(layers: Layers, nydusd: Command) -> None:
    with layers.daemon(nydusd):
        big = layers.mountpoint / "big"
        before = big.stat()
        reader = os.open(big, os.O_RDONLY)
        os.setxattr(big, "user.size", b"large")
        after = big.stat()
        for name in ("st_mode", "st_uid", "st_gid", "st_size", "st_mtime_ns", "st_ino"):
            assert getattr(after, name) == getattr(before, name), name
        assert {name: os.getxattr(big, name) for name in os.listxattr(big)} == {
            "user.colour": b"blue",
            "user.size": b"large",
        }
        assert big.read_bytes() == (layers.tree / "big").read_bytes()
        copy = (layers.upper / "big").stat()
        assert copy.st_blocks * 512 < 3_500_000, "the hole was filled"

        with big.open("r+b") as file:
            file.seek(2)
            file.write(b"changed")
        assert os.pread(reader, 9, 0)[2:] == b"changed"  # a handle from before the copy
        os.close(reader)

    assert (layers.tree / "big").stat().st_size == 5_000_003


def test_all_names_of_a_file_are_copied_up_together(layers: Layers, nydusd: Command) -> None:
    with layers.daemon(nydusd):
        (layers.mountpoint / "other-name").write_bytes(b"changed")
        assert (layers.mountpoint / "folder/file").read_bytes() == b"changed"
        assert (layers.mountpoint / "folder/file").stat().st_nlink == 2
        (layers.mountpoint / "folder/file").unlink()
        assert (layers.mountpoint / "other-name").stat().st_nlink == 1

    with layers.daemon(nydusd):
        assert (layers.mountpoint / "other-name").read_bytes() == b"changed"
        assert not (layers.mountpoint / "folder/file").exists()


def test_a_directory_made_anew_is_empty_after_a_remount(layers: Layers, nydusd: Command) -> None:
    with layers.daemon(nydusd):
        shutil.rmtree(layers.mountpoint / "folder")
        (layers.mountpoint / "folder").mkdir()
        (layers.mountpoint / "folder/new").write_bytes(b"new")

    with layers.daemon(nydusd):
        assert names_in(layers.mountpoint / "folder") == ["new"]
        assert os.getxattr(layers.upper / "folder", "trusted.overlay.opaque") == b"y"
        assert os.listxattr(layers.mountpoint / "folder") == []


def test_a_directory_of_the_image_is_copied_by_those_who_move_it(
    layers: Layers, nydusd: Command
) -> None:
    with layers.daemon(nydusd):
        with pytest.raises(OSError, match="cross-device") as caught:
            (layers.mountpoint / "folder").rename(layers.mountpoint / "moved")
        assert caught.value.errno == errno.EXDEV

        move = ["mv", str(layers.mountpoint / "folder"), str(layers.mountpoint / "moved")]
        subprocess.run(move, check=True)

        assert not (layers.mountpoint / "folder").exists()
        assert (layers.mountpoint / "moved/deep/file").read_bytes() == b"deep\n"
        (layers.mountpoint / "moved").rename(layers.mountpoint / "folder")  # it is only above now

    with layers.daemon(nydusd):
        assert names_in(layers.mountpoint / "folder") == ["deep", "file"]


def test_a_removed_open_file_can_be_read_and_written(layers: Layers, nydusd: Command) -> None:
    with layers.daemon(nydusd):
        lower = os.open(layers.mountpoint / "folder/deep/file", os.O_RDONLY)
        upper = os.open(layers.mountpoint / "new", os.O_RDWR | os.O_CREAT)
        (layers.mountpoint / "folder/deep/file").unlink()
        (layers.mountpoint / "new").unlink()
        (layers.mountpoint / "folder/deep/file").write_bytes(b"another")

        assert os.read(lower, 100) == b"deep\n"
        assert os.pwrite(upper, b"kept", 0) == 4
        assert os.pread(upper, 100, 0) == b"kept"
        assert os.fstat(upper).st_nlink == 0
        os.fchmod(lower, 0o600)  # a copy without a name
        assert stat.S_IMODE(os.fstat(lower).st_mode) == 0o600
        os.close(lower)
        os.close(upper)
        assert names_in(layers.upper) == ["folder"]


def test_writers_do_not_disturb_each_other(layers: Layers, nydusd: Command) -> None:
    content = (layers.tree / "big").read_bytes()
    with layers.daemon(nydusd):
        big, log = layers.mountpoint / "big", layers.mountpoint / "log"
        log.write_bytes(b"")

        def write(number: int) -> None:
            with big.open("r+b") as file:  # all four copy it up
                file.seek(number * 1_000_000)
                file.write(bytes([number]) * 1000)
            for line in range(50):
                descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
                os.write(descriptor, b"%d %d\n" % (number, line))
                os.close(descriptor)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        expected = bytearray(content)
        for number in range(4):
            start = number * 1_000_000
            expected[start : start + 1000] = bytes([number]) * 1000
        assert big.read_bytes() == expected
        assert sorted(log.read_bytes().splitlines()) == sorted(
            b"%d %d" % (number, line) for number in range(4) for line in range(50)
        )
        with big.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
            mapped[5_000_000:] = b"END"
        assert big.read_bytes()[-3:] == b"END"
    assert names_in(layers.work / "work") == []


def test_a_full_upper_disk_is_an_error_and_leaves_the_old_file(
    tmp_path: Path, tree: Path, nydusd: Command
) -> None:
    layers = Layers(tmp_path / "layers", tree)
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True)
    try:
        layers.upper, layers.work = disk / "upper", disk / "work"
        layers.upper.mkdir()
        layers.work.mkdir()
        with layers.daemon(nydusd):
            with pytest.raises(OSError, match="No space left") as caught:
                (layers.mountpoint / "big").open("r+b").close()
            assert caught.value.errno == errno.ENOSPC
            assert (layers.mountpoint / "big").read_bytes() == (tree / "big").read_bytes()
            assert names_in(layers.upper) == []
            assert names_in(layers.work / "work") == []
            (layers.mountpoint / "small").write_bytes(b"fits")
            (layers.mountpoint / "big").unlink()
            assert os.statvfs(layers.mountpoint).f_blocks == os.statvfs(disk).f_blocks
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_after_kill_9_each_file_is_old_or_new(layers: Layers, nydusd: Command) -> None:
    # The steps of a copy-up are killed one by one in tests/fs/test_overlay.py; here the daemon is.
    rng = random.Random(SEED)
    old = (layers.tree / "big").read_bytes()
    new = b"new" + old[3:]
    for _ in range(KILLS):
        shutil.rmtree(layers.upper)
        layers.upper.mkdir()
        daemon = layers.daemon(nydusd)
        daemon.start()
        assert daemon.process is not None
        killer = threading.Timer(rng.random() * 0.03, daemon.process.kill)
        killer.start()
        with contextlib.suppress(OSError), (layers.mountpoint / "big").open("r+b") as file:
            file.write(b"new")
        killer.join()
        daemon.stop()
        if (layers.upper / "big").exists():
            assert (layers.upper / "big").read_bytes() in (old, new)

    with layers.daemon(nydusd):
        assert (layers.mountpoint / "big").read_bytes() in (old, new)
        assert names_in(layers.work / "work") == []


def test_without_writable_it_is_shown_and_not_changed(layers: Layers, nydusd: Command) -> None:
    (layers.upper / "above").write_bytes(b"above")
    with layers.daemon(nydusd, writable=False):
        assert (layers.mountpoint / "above").read_bytes() == b"above"
        assert (layers.mountpoint / "folder/file").read_bytes() == b"from the image\n"
        with pytest.raises(OSError, match="Read-only") as caught:
            (layers.mountpoint / "folder/file").write_bytes(b"")
        assert caught.value.errno == errno.EROFS
    assert names_in(layers.work) == []


def test_the_api_mounts_an_overlay(layers: Layers, nydusd: Command, tmp_path: Path) -> None:
    socket = tmp_path / "api.sock"
    options = ("--writable", "--apisock", str(socket))
    with Daemon(nydusd.argv, layers.mountpoint, options=options, env=nydusd.env):
        wait_for(socket)
        body = {
            "fs_type": "rafs",
            "source": str(layers.folder / "image/bootstrap"),
            "config": json.dumps(layers.config()),
        }
        assert ask(socket, "POST", "/api/v1/mount", body, mountpoint="/one").status == 204
        (layers.mountpoint / "one/folder/file").write_bytes(b"changed")
        again = ask(socket, "POST", "/api/v1/mount", body, mountpoint="/two")
        assert again.status == 500
        assert "in use by another overlay" in again.message
        assert ask(socket, "DELETE", "/api/v1/mount", mountpoint="/one").status == 204
        assert ask(socket, "POST", "/api/v1/mount", body, mountpoint="/two").status == 204
        assert (layers.mountpoint / "two/folder/file").read_bytes() == b"changed"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"upper_dir": "/nowhere"}, "upper_dir '/nowhere' cannot be opened"),
        ({"upper_dir": ""}, "upper_dir: is empty"),
        ({"work_dir": "/proc"}, "must be on one file system"),
        ({"inside": "yes"}, "neither may lie inside the other"),
    ],
)
def test_directories_that_cannot_be_are_refused(
    layers: Layers, nydusd: Command, change: dict[str, str], words: str
) -> None:
    if change.pop("inside", ""):
        change = {"upper_dir": str(layers.work / "upper")}
        (layers.work / "upper").mkdir()

    daemon = layers.daemon(nydusd, **change)

    with pytest.raises(RuntimeError) as caught:
        daemon.start()

    daemon.log.close()
    assert words in str(caught.value)


def test_a_hostile_upper_directory_gives_errors(layers: Layers, nydusd: Command) -> None:
    secret = layers.folder / "secret"
    secret.mkdir()
    (secret / "file").write_bytes(b"secret")
    (layers.upper / "folder").symlink_to(secret)  # where the image has a directory
    (layers.upper / "locked").mkdir(mode=0)
    (layers.upper / os.fsdecode(b"\xff\n\x01")).write_bytes(b"odd")
    (layers.upper / "moved").mkdir()
    os.setxattr(layers.upper / "moved", "trusted.overlay.redirect", b"/folder")
    (layers.upper / "meta").write_bytes(b"")
    os.setxattr(layers.upper / "meta", "trusted.overlay.metacopy", b"")
    with layers.daemon(nydusd, "-l", "error") as daemon:
        root = layers.mountpoint
        assert (root / "folder").is_symlink()
        assert (root / os.fsdecode(b"\xff\n\x01")).read_bytes() == b"odd"
        (root / "locked/file").write_bytes(b"root may")
        for name in ("moved", "meta"):
            with pytest.raises(OSError, match="Input/output error"):
                (root / name).lstat()

        # changed behind the daemon's back
        (root / "empty/file").write_bytes(b"x")
        held = os.open(root / "empty/file", os.O_RDONLY)
        shutil.rmtree(layers.upper / "empty")
        (layers.upper / "empty").symlink_to("nowhere")
        assert os.read(held, 9) == b"x"
        os.close(held)
        with pytest.raises(OSError, match=r"Errno"):
            (root / "empty/file").write_bytes(b"y")
        (layers.upper / "empty").unlink()
        assert (root / "empty").is_dir()
        (root / "empty/file").write_bytes(b"z")
        assert (layers.upper / "empty/file").read_bytes() == b"z"
        assert (secret / "file").read_bytes() == b"secret"
        assert names_in(secret) == ["file"]
        assert daemon.process is not None
        assert daemon.process.poll() is None


def test_programs_work_on_it(layers: Layers, nydusd: Command) -> None:
    with layers.daemon(nydusd):
        root = layers.mountpoint

        def run(*words: str) -> None:
            done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{words}: {done.stderr}"

        run("sed", "-i", "s/from/by/", "folder/file")
        assert (root / "folder/file").read_bytes() == b"by the image\n"
        run("tar", "-cf", "all.tar", "folder", "big", "link")
        run("mkdir", "out")
        run("tar", "-xpf", "all.tar", "-C", "out")
        run("cmp", "big", "out/big")
        run("cp", "-a", "folder", "copy")
        run("rm", "-rf", "folder", "out")
        run("sh", "-c", "find . -xdev | sort > list && test -s list")
        if shutil.which("git") is None:
            return
        settings = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
        run("git", *settings, "init", "-q", ".")
        run("git", *settings, "add", "-A")
        run("git", *settings, "commit", "-q", "-m", "first")
        run("git", *settings, "gc", "-q")
        run("git", *settings, "fsck", "--strict")
        run("git", *settings, "status", "--porcelain")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("how", ["fail_over", "upgrade"])
def test_a_successor_serves_open_files_and_folders(
    layers: Layers, nydusd: Command, tmp_path: Path, how: str
) -> None:
    layers.daemon(nydusd)  # writes the configuration
    options = (
        *("--config", str(layers.folder / "config.json")),
        *("--bootstrap", str(layers.folder / "image/bootstrap"), "--writable"),
    )
    with Succession(nydusd, tmp_path, options) as succession:
        root = succession.mountpoint
        (root / "folder/new").write_bytes(b"before")
        with (
            (root / "folder/new").open("r+b", buffering=0) as upper,
            (root / "folder/deep/file").open("rb", buffering=0) as lower,
        ):
            inside = os.open(root / "folder/deep", os.O_RDONLY)

            getattr(succession, how)()

            assert upper.write(b"after!") == 6
            assert lower.read() == b"deep\n"
            assert os.listdir(inside) == ["file"]  # noqa: PTH208 - a descriptor
            os.close(inside)
        assert (root / "folder/new").read_bytes() == b"after!"
        (root / "folder/file").write_bytes(b"changed")
        assert (root / "other-name").read_bytes() == b"changed"
