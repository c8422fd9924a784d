"""A directory of the host behind a mount: everything as on the host, and nothing beyond it."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.system.control import ask, await_rest, wait_for
from tests.system.daemon import Daemon
from tests.system.succession import Succession
from tests.system.twins import Sequence, Side, outcome, rename2, tree

pytestmark = [pytest.mark.root, pytest.mark.fuse]

SEQUENCES = int(os.environ.get("NYDUSD_TEST_TWINS", "200"))
LENGTH = 40
OTHER = 12345


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of the host."""
    path = tmp_path / "host/share"
    path.mkdir(parents=True)
    return path


@pytest.fixture
def writable(serve, folder):
    """A daemon that shows it, to be changed."""
    with serve(None, options=("--shared-dir", str(folder), "--writable")) as daemon:
        yield daemon


@pytest.fixture
def mnt(writable) -> Path:
    return writable.mountpoint


def fill(folder: Path, seed: int) -> None:
    """A random tree with everything in it that a file system can hold."""
    rng = random.Random(seed)
    places = [folder]
    for number in range(150):
        place = rng.choice(places)
        name = os.fsdecode(b"n%d-" % number + rng.choice([b"", b"\xff\xfe", "ü".encode(), b" \n"]))
        kind = rng.choice("ddfffffflps")
        path = place / name
        if kind == "d":
            path.mkdir(rng.choice([0o755, 0o1777, 0o700]))
            places.append(path)
        elif kind == "l":
            path.symlink_to(rng.choice(["n1", "/etc/passwd", "../..", "nowhere"]))
        elif kind == "p":
            os.mkfifo(path)
        elif kind == "s":
            os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(5, 300))
        else:
            path.write_bytes(rng.randbytes(rng.choice([0, 1, 4095, 4097, 300_000])))
            os.chown(path, rng.choice([0, 1000]), rng.choice([0, 1000]))
            path.chmod(rng.choice([0o644, 0o4755, 0o2755, 0o400]))
            if rng.random() < 0.3:
                os.setxattr(path, "user.mark", rng.randbytes(20))
            if rng.random() < 0.2:
                (place / f"{name}-too").hardlink_to(path)


def times(root: Path) -> dict[str, int]:
    return {str(path.relative_to(root)): path.lstat().st_mtime_ns for path in root.rglob("*")}


@pytest.mark.parametrize("seed", [1, 2])
def test_a_random_tree_is_shown_as_it_is(serve, folder, seed):
    fill(folder, seed)
    with serve(None, options=("--shared-dir", str(folder))) as daemon:
        assert tree(daemon.mountpoint) == tree(folder)
        assert times(daemon.mountpoint) == times(folder)
        assert os.statvfs(daemon.mountpoint).f_blocks == os.statvfs(folder).f_blocks


@pytest.mark.timeout(60 + SEQUENCES // 10)
def test_random_operations_do_on_the_mount_what_they_do_on_a_plain_directory(mnt, folder, tmp_path):
    twin = tmp_path / "twin"
    done = 0
    for seed in range(SEQUENCES):
        for root in (mnt / str(seed), twin / str(seed)):
            root.mkdir(parents=True)
        sides = Side(mnt / str(seed)), Side(twin / str(seed))
        for side in sides:
            side.fill()
        sequence = Sequence(seed)
        history = []
        for step in range(LENGTH):
            operation = next(sequence)
            answers = [outcome(operation, side) for side in sides]
            history.append((step, operation.__qualname__, answers[1]))
            assert answers[0] == answers[1], (seed, history[-12:])
            done += 1
        for side in sides:
            side.close()
        assert tree(mnt / str(seed)) == tree(twin / str(seed)) == tree(folder / str(seed)), seed
    print(f"{done} operations of {SEQUENCES} sequences on a mount and on its twin")


def test_without_writable_nothing_can_be_changed(serve, folder):
    (folder / "f").write_bytes(b"1")
    with serve(None, options=("--shared-dir", str(folder))) as daemon:
        for change in (
            lambda path: (path / "new").mkdir(),
            lambda path: (path / "f").unlink(),
            lambda path: (path / "f").open("r+b"),
            lambda path: (path / "f").chmod(0o600),
        ):
            with pytest.raises(OSError, match=rf"\[Errno {errno.EROFS}\]"):
                change(daemon.mountpoint)


BECOME = f"""
import os, sys
os.umask(int(sys.argv.pop()))
os.setgroups([]), os.setresgid(*[{OTHER}] * 3), os.setresuid(*[{OTHER}] * 3)
"""


def as_user(script: str, *arguments: object, umask: int = 0o22) -> str:
    """What *script* prints when another user runs it."""
    done = subprocess.run(
        [sys.executable, "-c", BECOME + script, *map(str, arguments), str(umask)],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def reachable(tmp_path):
    """Lets another user get to the test's directories."""
    path = tmp_path
    changed = []
    while path != path.parent and path.stat().st_mode & 0o005 != 0o005:
        changed.append((path, path.stat().st_mode))
        path.chmod(0o755)
        path = path.parent
    yield
    for path, mode in changed:
        path.chmod(stat.S_IMODE(mode))


MAKE = """
import os, sys
os.chdir(sys.argv[1])
open("file", "w").close(); os.mkdir("directory"); os.symlink("x", "link"); os.mkfifo("pipe")
os.close(os.open("strict", os.O_CREAT | os.O_RDWR, 0o666))
"""


def test_what_a_user_makes_is_his_with_his_umask(mnt, folder, reachable):
    (folder / "all").mkdir()
    (folder / "all").chmod(0o777)
    as_user(MAKE, mnt / "all", umask=0o27)
    for name in ("file", "directory", "link", "pipe", "strict"):
        found = os.lstat(folder / "all" / name)
        assert (found.st_uid, found.st_gid) == (OTHER, OTHER), name
    modes = [stat.S_IMODE(os.lstat(folder / "all" / n).st_mode) for n in ("file", "directory")]
    assert modes == [0o640, 0o750]


def test_a_directory_with_the_set_group_id_bit_gives_its_group(mnt, folder, reachable):
    (folder / "group").mkdir()
    os.chown(folder / "group", 0, 777)
    (folder / "group").chmod(0o2777)
    as_user(MAKE, mnt / "group")
    assert {os.lstat(path).st_gid for path in (folder / "group").iterdir()} == {777}
    assert (folder / "group/directory").stat().st_mode & stat.S_ISGID


def test_a_user_may_not_what_the_modes_forbid(mnt, folder, reachable):
    (folder / "secret").write_bytes(b"1")
    (folder / "secret").chmod(0o600)
    script = """
import sys
for mode in ("r", "r+"):
    try:
        open(sys.argv[1], mode)
        print("opened")
    except PermissionError:
        print("refused")
try:
    open(sys.argv[1] + "-new", "w")
    print("made")
except PermissionError:
    print("refused")
"""
    assert as_user(script, mnt / "secret").split() == ["refused"] * 3


def test_a_write_by_a_user_takes_privileges_away(mnt, folder, reachable):
    for name in ("written", "cut"):
        (folder / name).write_bytes(b"program")
        os.chown(folder / name, OTHER, OTHER)
        (folder / name).chmod(0o6777)
    as_user("import sys; f = open(sys.argv[1], 'r+b'); f.write(b'x')", mnt / "written")
    as_user("import os, sys; os.truncate(sys.argv[1], 1)", mnt / "cut")
    for name in ("written", "cut"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o777, name


def test_hard_links_are_one_inode_and_numbers_of_listings_are_those_of_files(mnt):
    (mnt / "a").write_bytes(b"1")
    (mnt / "b").hardlink_to(mnt / "a")
    assert (mnt / "a").stat().st_ino == (mnt / "b").stat().st_ino
    with os.scandir(mnt) as entries:
        for entry in entries:
            assert entry.inode() == entry.stat().st_ino


def test_what_the_host_changes_is_seen(mnt, folder):
    (folder / "f").write_bytes(b"first")
    assert (mnt / "f").read_bytes() == b"first"
    (folder / "f").write_bytes(b"other")
    assert (mnt / "f").read_bytes() == b"other"
    with (folder / "f").open("ab") as file:
        file.write(b" and more")
    assert (mnt / "f").read_bytes() == b"other and more"
    (folder / "new").write_bytes(b"new")
    assert (mnt / "new").read_bytes() == b"new"
    assert sorted(path.name for path in mnt.iterdir()) == ["f", "new"]


def test_a_file_without_a_name_goes_on_while_it_is_open(mnt, folder):
    with (mnt / "f").open("w+b") as file:
        file.write(b"data")
        file.flush()
        (mnt / "f").unlink()
        assert list(folder.iterdir()) == []
        file.write(b" and more")
        file.flush()
        file.seek(0)
        assert file.read() == b"data and more"
        os.ftruncate(file.fileno(), 4)
        assert os.fstat(file.fileno()).st_size == 4
        assert os.fstat(file.fileno()).st_nlink == 0


def test_a_file_that_is_renamed_over_lives_while_it_is_open(mnt):
    (mnt / "old").write_bytes(b"old")
    (mnt / "new").write_bytes(b"new")
    with (mnt / "old").open("rb") as file:
        (mnt / "new").rename(mnt / "old")
        assert file.read() == b"old"
    assert (mnt / "old").read_bytes() == b"new"


def test_files_can_be_mapped_and_changed_there(mnt, folder):
    (mnt / "f").write_bytes(bytes(20000))
    with (mnt / "f").open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[10000:10004] = b"here"
        mapped.flush()
        assert (folder / "f").read_bytes()[9998:10006] == b"\0\0here\0\0"
    with (
        (mnt / "f").open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
    ):
        assert mapped[10000:10004] == b"here"


def test_appending_writers_lose_nothing_beside_a_writer_on_the_host(mnt, folder):
    (folder / "log").touch()

    def append(root: Path, mark: str) -> None:
        with (root / "log").open("ab", buffering=0) as file:
            for number in range(200):
                file.write(f"{mark}{number:05}\n".encode())

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(append, (mnt, mnt, folder), "xyz"))
    lines = (folder / "log").read_text().split()
    assert sorted(lines) == sorted(f"{mark}{n:05}" for mark in "xyz" for n in range(200))


def test_append_mode_can_be_switched_off(mnt):
    import fcntl

    (mnt / "f").write_bytes(b"0123456789")
    fd = os.open(mnt / "f", os.O_RDWR | os.O_APPEND)
    os.pwrite(fd, b"end", 0)
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~os.O_APPEND)
    os.pwrite(fd, b"AB", 0)
    os.close(fd)
    assert (mnt / "f").read_bytes() == b"AB23456789end"


def test_direct_io_reads_and_writes_what_is_there(mnt, folder):
    fd = os.open(mnt / "f", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
    buffer = mmap.mmap(-1, 8192)
    buffer[:] = b"ab" * 4096
    assert os.pwrite(fd, buffer, 4096) == 8192
    assert os.preadv(fd, [buffer], 0) == 8192
    os.close(fd)
    assert buffer[:4098] == bytes(4096) + b"ab"
    assert (folder / "f").stat().st_size == 12288


def test_holes_are_holes(mnt, folder):
    with (mnt / "sparse").open("w+b") as file:
        file.truncate(100 << 20)
        os.pwrite(file.fileno(), b"x" * 4096, 50 << 20)
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 50 << 20
        assert os.lseek(file.fileno(), 50 << 20, os.SEEK_HOLE) == (50 << 20) + 4096
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENXIO}\]"):
            os.lseek(file.fileno(), 60 << 20, os.SEEK_DATA)
    assert (mnt / "sparse").stat().st_blocks == (folder / "sparse").stat().st_blocks < 100


def test_large_files_come_back(mnt, folder):
    data = random.Random(5).randbytes(9 << 20)
    (mnt / "large").write_bytes(data)
    assert (folder / "large").read_bytes() == data
    subprocess.run(["sync", "-f", str(mnt)], check=True, timeout=60)
    for round_number in range(2):
        digest = hashlib.sha256((mnt / "large").read_bytes()).digest()
        assert digest == hashlib.sha256(data).digest(), round_number


def test_names_are_bytes_of_at_most_255(mnt, folder):
    for name in (b"\xff\xfe\n", b"n" * 255):
        (mnt / os.fsdecode(name)).write_bytes(name)
        assert (folder / os.fsdecode(name)).read_bytes() == name
    with pytest.raises(OSError, match=rf"\[Errno {errno.ENAMETOOLONG}\]"):
        (mnt / ("n" * 256)).touch()


def test_no_link_leads_out_of_the_directory_on_the_host(mnt, folder, tmp_path):
    outside = folder.parent / "outside"
    outside.mkdir()
    (outside / "f").write_bytes(b"kept")
    (folder / "out").symlink_to("../outside")
    # The reader's system follows it, inside its own tree, where there is nothing.
    with pytest.raises(FileNotFoundError):
        (mnt / "out/f").read_bytes()
    assert (mnt / "out").readlink() == Path("../outside")
    (mnt / "directory").mkdir()
    (folder / "directory").rename(tmp_path / "moved")
    (folder / "directory").symlink_to("../outside")
    deadline = time.monotonic() + 60
    while not (mnt / "directory").is_symlink():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(FileNotFoundError):
        (mnt / "directory/f").write_bytes(b"changed")
    assert (outside / "f").read_bytes() == b"kept"


def test_two_names_change_places_or_are_not_replaced(mnt):
    (mnt / "a").write_bytes(b"a")
    (mnt / "b").mkdir()
    with pytest.raises(FileExistsError):
        rename2(os.fsencode(mnt / "a"), os.fsencode(mnt / "b"), 1)
    rename2(os.fsencode(mnt / "a"), os.fsencode(mnt / "b"), 2)
    assert (mnt / "b").read_bytes() == b"a"
    assert (mnt / "a").is_dir()


def test_thousands_of_files_can_be_removed_while_they_are_listed(mnt, folder):
    for number in range(3000):
        (folder / f"{number:04}").touch()
    with os.scandir(mnt) as entries:
        for entry in entries:
            Path(entry.path).unlink()
    assert list(folder.iterdir()) == []


def test_the_daemon_lets_go_of_what_the_kernel_forgets(writable, mnt, folder):
    for number in range(400):
        (folder / str(number)).mkdir()
        (folder / str(number) / "f").write_bytes(b"x")
    before = writable.open_files()
    assert len(tree(mnt)) == 800
    held = writable.open_files()
    assert held >= before + 800
    deadline = time.monotonic() + 60
    while writable.open_files() > before + 20:
        assert time.monotonic() < deadline, writable.open_files()
        Path("/proc/sys/vm/drop_caches").write_text("2")
        time.sleep(0.05)


@pytest.mark.skipif(
    not all(map(shutil.which, ("git", "make", "cc", "tar"))), reason="needs git, make, cc and tar"
)
def test_a_real_workload_gives_what_it_gives_elsewhere(mnt, folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    (source / "main.c").write_text('#include "a.h"\nint main(void) { return value() - 42; }\n')
    (source / "a.h").write_text("int value(void);\n")
    (source / "a.c").write_text('#include "a.h"\nint value(void) { return 42; }\n')
    (source / "Makefile").write_text(
        "prog: main.o a.o\n\tcc -o $@ main.o a.o\n%.o: %.c a.h\n\tcc -c -o $@ $<\n"
    )
    fill(source / "..", 9)
    run = {"check": True, "capture_output": True, "timeout": 120}
    git = ["git", "-c", "user.name=n", "-c", "user.email=e@example.com", "-C", str(source)]
    subprocess.run([*git, "init", "-q"], **run)
    subprocess.run([*git, "add", "."], **run)
    subprocess.run([*git, "commit", "-qm", "all"], **run)
    subprocess.run(["git", "clone", "-q", str(source), str(mnt / "clone")], **run)
    status = subprocess.run(["git", "-C", str(mnt / "clone"), "status", "--short"], **run)
    assert status.stdout == b""
    subprocess.run(["git", "-C", str(mnt / "clone"), "fsck"], **run)
    subprocess.run(["make", "-s", "-C", str(mnt / "clone")], **run)
    subprocess.run([str(mnt / "clone/prog")], **run)
    again = subprocess.run(["make", "-C", str(mnt / "clone")], **run)
    assert b"up to date" in again.stdout
    subprocess.run(["tar", "-C", str(source), "-cf", str(tmp_path / "t.tar"), "."], **run)
    (mnt / "tar").mkdir()
    subprocess.run(["tar", "-C", str(mnt / "tar"), "-xf", str(tmp_path / "t.tar")], **run)
    assert tree(folder / "tar") == tree(source)


def held_below(daemon: Daemon, folder: Path) -> list[str]:
    """What the daemon has open of *folder*."""
    found = []
    for fd in Path(f"/proc/{daemon.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(fd.readlink()))
    return [path for path in found if path.startswith(str(folder))]


class TestApi:
    """Mounts that come and go."""

    @pytest.fixture
    def shared(self, serve, tmp_path):
        sock = tmp_path / "api.sock"
        with serve(None, options=("--apisock", str(sock), "--writable")) as daemon:
            wait_for(sock)
            yield daemon, sock

    def body(self, source: object, kind: str = "passthrough_fs") -> dict[str, str]:
        return {"source": str(source), "fs_type": kind, "config": ""}

    def mount(self, sock: Path, source: object, at: str, kind: str = "passthrough_fs"):
        return ask(sock, "POST", "/api/v1/mount", self.body(source, kind), mountpoint=at)

    @pytest.mark.parametrize("kind", ["passthrough", "passthroughfs", "passthrough_fs"])
    def test_a_directory_is_mounted_shown_and_taken_away(self, shared, folder, kind):
        daemon, sock = shared
        (folder / "f").write_bytes(b"1")
        assert self.mount(sock, folder, "/sub", kind).status == 204
        assert (daemon.mountpoint / "sub/f").read_bytes() == b"1"
        (daemon.mountpoint / "sub/g").write_bytes(b"2")
        assert (folder / "g").read_bytes() == b"2"
        info = ask(sock, "GET", "/api/v1/daemon").json["backend_collection"]["/sub"]
        assert info.pop("mounted_time")
        assert info == {"backend_type": "PassthroughFs", "mountpoint": "/sub", "config": None}
        assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/sub").status == 204
        assert list((daemon.mountpoint / "sub").iterdir()) == []

    def test_errors_are_told_in_the_originals_words(self, shared, folder):
        _, sock = shared
        (folder / "file").touch()
        failed = 'Mount(MountFilesystem(Other("{}")))'
        missing = "passthroughfs failed to handle request, No such file or directory (os error 2)"
        text = r"message: \"Not a directory\""
        wrong = "VFS failed to handle request, Mount(Os {{ code: 20, kind: NotADirectory, {} }})"
        for source, words in (("missing", missing), ("file", wrong.format(text))):
            reply = self.mount(sock, folder / source, "/sub")
            assert (reply.status, reply.message) == (500, failed.format(words))
        assert self.mount(sock, folder, "/sub").status == 204
        reply = self.mount(sock, folder, "/sub")
        assert reply.message == failed.format("object or filesystem already exists")
        reply = ask(sock, "PUT", "/api/v1/mount", self.body(folder), mountpoint="/sub")
        assert reply.message == failed.format("filesystem type mismatch, expect RAFS")
        reply = ask(sock, "GET", "/api/v1/daemon/backend", mountpoint="/sub")
        mismatch = 'FsBackendInfo(Metrics(Daemon(Other("filesystem type mismatch, expect RAFS"))))'
        assert reply.message == mismatch
        reply = ask(sock, "POST", "/api/v1/mount", {"source": "x", "fs_type": "passthrough_fs"})
        assert reply.status == 400

    def test_nothing_is_counted_of_it_and_the_rest_goes_on(self, shared, folder):
        _, sock = shared
        assert self.mount(sock, folder, "/sub").status == 204
        assert ask(sock, "GET", "/api/v1/metrics", id="/sub").status == 404
        assert ask(sock, "GET", "/api/v1/metrics").status == 404
        assert ask(sock, "GET", "/metrics").status == 200
        for target in ("/api/v1/metrics/backend", "/api/v1/metrics/blobcache"):
            assert ask(sock, "GET", target).status in (200, 404)

    def test_two_mounts_are_apart(self, shared, tmp_path):
        daemon, sock = shared
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            assert self.mount(sock, tmp_path / name, f"/{name}").status == 204
        (daemon.mountpoint / "one/f").write_bytes(b"1")
        with pytest.raises(OSError, match=rf"\[Errno {errno.EXDEV}\]"):
            (daemon.mountpoint / "one/f").rename(daemon.mountpoint / "two/f")
        with pytest.raises(OSError, match=rf"\[Errno {errno.EXDEV}\]"):
            (daemon.mountpoint / "two/f").hardlink_to(daemon.mountpoint / "one/f")
        subprocess.run(
            ["mv", str(daemon.mountpoint / "one/f"), str(daemon.mountpoint / "two/f")], check=True
        )
        assert (tmp_path / "two/f").read_bytes() == b"1"
        assert not (tmp_path / "one/f").exists()

    def test_an_umount_leaves_open_files_with_errors_and_closes_all(self, shared, folder):
        daemon, sock = shared
        await_rest(daemon.pid, sock)
        (folder / "f").write_bytes(b"x" * 100_000)
        assert self.mount(sock, folder, "/sub").status == 204
        fd = os.open(daemon.mountpoint / "sub/f", os.O_RDWR)
        assert os.read(fd, 1) == b"x"
        assert ask(sock, "DELETE", "/api/v1/mount", mountpoint="/sub").status == 204
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENOENT}\]"):
            os.write(fd, b"y")
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENOENT}\]"):
            os.close(fd)
        deadline = time.monotonic() + 60
        while held_below(daemon, folder):
            assert time.monotonic() < deadline, held_below(daemon, folder)
            time.sleep(0.01)

    def test_the_daemons_own_mount_inside_the_directory_is_not_entered(self, serve, tmp_path):
        sock = tmp_path / "api.sock"
        daemon = serve(None, options=("--apisock", str(sock), "--fuse-threads", "1"))
        daemon.start()  # one thread that must not ask itself
        wait_for(sock)
        assert self.mount(sock, tmp_path, "/all").status == 204
        inside = daemon.mountpoint / "all" / daemon.mountpoint.name
        with pytest.raises(OSError, match=rf"\[Errno {errno.ELOOP}\]"):
            inside.stat()
        assert daemon.mountpoint.name in {p.name for p in (daemon.mountpoint / "all").iterdir()}


def test_many_that_change_one_directory_at_a_time_leave_it_whole(serve, folder):
    # Hammers with as many threads as the daemon has, and takes inodes and handles away meanwhile.
    options = ("--shared-dir", str(folder), "--writable", "--fuse-threads", "8")
    with serve(None, options=options) as daemon:
        before = daemon.open_files()

        def hammer(seed: int) -> None:
            side, sequence = Side(daemon.mountpoint), Sequence(seed)
            for _ in range(400):
                outcome(next(sequence), side)
            side.close()

        with ThreadPoolExecutor(8) as pool:
            work = [pool.submit(hammer, seed) for seed in range(8)]
            while not all(each.done() for each in work):
                Path("/proc/sys/vm/drop_caches").write_text("2")
                time.sleep(0.02)
            for each in work:
                each.result()
        assert {name: row[:6] for name, row in tree(daemon.mountpoint).items()} == {
            name: row[:6] for name, row in tree(folder).items()
        }
        deadline = time.monotonic() + 60
        while daemon.open_files() > before + 30:
            assert time.monotonic() < deadline, daemon.open_files()
            Path("/proc/sys/vm/drop_caches").write_text("2")
            time.sleep(0.05)


def test_a_directory_that_is_missing_ends_the_start(serve, tmp_path):
    daemon: Daemon = serve(None, options=("--shared-dir", str(tmp_path / "missing")))
    with pytest.raises(RuntimeError, match="No such file or directory"):
        daemon.start()


FOLLOWER = """
import os, sys
root = sys.argv[1]
os.chdir(root + "/d")
file = open("held", "r+b", buffering=0)
listing = os.open(".", os.O_RDONLY)
print(flush=True)
input()
file.seek(0)
first = file.read()
file.write(b" and more")
os.close(os.open("new", os.O_CREAT | os.O_WRONLY))
print(first.decode(), sorted(os.listdir(listing)), os.fstat(file.fileno()).st_size, flush=True)
"""


@pytest.mark.parametrize("way", ["fail_over", "upgrade"])
def test_names_open_files_and_working_directories_go_on_with_a_successor(
    nydusd, folder, tmp_path, way
):
    (folder / "d").mkdir()
    (folder / "d/held").write_bytes(b"data")
    options = ("--shared-dir", str(folder), "--writable")
    with Succession(nydusd, tmp_path, options) as one:
        with subprocess.Popen(
            [sys.executable, "-c", FOLLOWER, str(one.mountpoint)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as user:
            assert user.stdout.readline() == "\n"
            numbers = (one.mountpoint / "d/held").stat().st_ino
            getattr(one, way)()
            output, _ = user.communicate("\n", timeout=60)
        assert output.strip() == "data ['held', 'new'] 13", one.log_text()
        assert (folder / "d/held").read_bytes() == b"data and more"
        assert (one.mountpoint / "d/held").stat().st_ino == numbers
        (one.mountpoint / "later").write_bytes(b"1")
    assert (folder / "later").read_bytes() == b"1"
    assert json.dumps(sorted(p.name for p in folder.iterdir())) == '["d", "later"]'
