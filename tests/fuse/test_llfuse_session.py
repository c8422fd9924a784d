"""A session on a real mount: what it serves, and every way in which it ends."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nydusd.base.errors import MountError
from nydusd.fs.vfs import Vfs
from nydusd.fuse import mount
from nydusd.fuse.llfuse_session import Inherited, Session
from tests.fs.memory import MemoryFs

pytestmark = [pytest.mark.root, pytest.mark.fuse]

SLOW = {b"slow-%d" % number: b"late" for number in range(60)}
FILES = {b"quick": b"soon", b"big": bytes(range(256)) * 20_000, **SLOW}
NAMES = sorted(os.fsdecode(name) for name in FILES)
END_SECONDS = 20
RESENDS = 1 << 39  # of the flags a kernel offers


class Served:
    """A session over files in memory, mounted at *path*."""

    def __init__(self, path: Path, where: str = "/", **options):
        self.path = path
        self.filesystem = MemoryFs(FILES, stalled=set(SLOW))
        self.vfs = Vfs()
        self.vfs.mount(self.filesystem, where)
        self.ended = threading.Event()
        self.session = Session(self.vfs, path, on_end=self.ended.set, **options)
        if "inherited" in options:
            self.session.prepare()
        else:
            self.session.start()
        self.device = self.session.connection_id

    def leave(self) -> None:
        """Stop for a successor, who is of the same process here: it must have ended wholly."""
        self.session.stop(unmount=False)
        assert self.session.wait(END_SECONDS)

    def is_mounted(self) -> bool:
        return mount.device_at(self.path) == self.device


def heritage(session: Session, drain: str = "resend") -> Inherited:
    negotiation = session.negotiation
    assert negotiation is not None
    return Inherited(os.dup(session.fd), *negotiation[1:], drain, session.connection_id)


def names_in(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def has_no_workers() -> bool:
    names = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            names.append((task / "comm").read_text())
    return not any(name.startswith(("fuse_", "fetch-")) for name in names)


@pytest.fixture
def serve(tmp_path):
    running = []

    def start(**options) -> Served:
        served = prepare(**options)
        if "inherited" in options:
            served.session.start()
        return served

    def prepare(**options) -> Served:
        served = Served(tmp_path, **options)
        running.append(served)
        return served

    start.prepare = prepare
    yield start
    for served in running:
        served.filesystem.release.set()
        served.session.stop()
        subprocess.run(["umount", "-lq", tmp_path], check=False, capture_output=True)


@pytest.fixture
def fusectl(tmp_path_factory):
    control = tmp_path_factory.mktemp("control")
    subprocess.run(["mount", "-t", "fusectl", "control", control], check=True)
    yield control
    subprocess.run(["umount", control], check=True)


def test_files_are_listed_and_read(serve):
    served = serve()

    assert names_in(served.path) == NAMES
    assert (served.path / "quick").read_bytes() == b"soon"
    assert (served.path / "big").read_bytes() == FILES[b"big"]
    assert os.getxattr(served.path / "quick", "user.key") == b"value"
    assert os.statvfs(served.path).f_files == len(FILES) + 1


def test_a_shared_daemon_shows_what_is_mounted_while_it_runs(serve):
    served = serve(where="/early")
    assert names_in(served.path) == ["early"]
    for round_number in range(20):
        content = b"round %d" % round_number
        served.vfs.mount(MemoryFs({b"f": content}), "/a/b")
        assert (served.path / "a/b/f").read_bytes() == content
        assert served.vfs.umount("/a/b", timeout=10)
        assert names_in(served.path / "a/b") == []
        (served.path / "a").stat()
        served.vfs.mount(MemoryFs({b"g": b""}), "/a/b")
        assert names_in(served.path / "a/b") == ["g"]
        served.vfs.umount("/a/b", timeout=10)


def test_a_read_only_mount_refuses_changes(serve):
    served = serve()
    with pytest.raises(OSError, match="Read-only file system"):
        (served.path / "new").write_bytes(b"")


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda path: (path / "new").mkdir(), errno.ENOSYS),
        (lambda path: os.mknod(path / "new"), errno.ENOSYS),
        (lambda path: (path / "new").symlink_to("a"), errno.ENOSYS),
        (lambda path: (path / "quick").unlink(), errno.ENOSYS),
        (lambda path: (path / "quick").rmdir(), errno.ENOTDIR),
        (lambda path: (path / "quick").rename(path / "new"), errno.ENOSYS),
        (lambda path: (path / "new").hardlink_to(path / "quick"), errno.EPERM),
        (lambda path: (path / "quick").chmod(0o600), errno.ENOSYS),
        (lambda path: os.truncate(path / "quick", 0), errno.ENOSYS),
        (lambda path: os.setxattr(path / "quick", "user.a", b"b"), errno.ENOTSUP),
    ],
)
def test_a_writable_mount_of_what_cannot_be_changed_refuses(serve, change, code):
    served = serve(writable=True)
    with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
        change(served.path)


def test_stalled_reads_delay_neither_others_nor_metadata(serve):
    served = serve(threads=2)
    with ThreadPoolExecutor(len(SLOW)) as pool:
        reads = [pool.submit((served.path / os.fsdecode(name)).read_bytes) for name in SLOW]
        while served.session.waiting_reads < len(SLOW):
            pass
        assert (served.path / "quick").read_bytes() == b"soon"
        assert names_in(served.path) == NAMES
        assert not any(read.done() for read in reads)
        served.filesystem.release.set()
        assert {read.result() for read in reads} == {b"late"}


def test_stop_ends_threads_and_mount(serve):
    served = serve()
    served.session.stop()

    assert served.ended.is_set()
    assert not served.is_mounted()
    assert has_no_workers()


def test_stop_does_not_wait_for_open_files_or_stalled_reads(serve):
    served = serve()
    file = os.open(served.path / "slow-0", os.O_RDONLY)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit(os.pread, file, 4, 0)
        while served.session.waiting_reads == 0:
            pass
        served.session.stop()
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            read.result()
    with contextlib.suppress(OSError):
        os.close(file)

    assert not served.is_mounted()


@pytest.mark.parametrize("how", [["umount"], ["umount", "-l"]], ids=" ".join)
def test_umount_by_anybody_ends_the_session(serve, how):
    served = serve()
    subprocess.run([*how, served.path], check=True)

    assert served.ended.wait(END_SECONDS)
    assert has_no_workers()


def test_an_aborted_connection_ends_the_session_and_its_mount(serve, fusectl):
    served = serve()
    (fusectl / str(served.device) / "abort").write_text("1")

    assert served.ended.wait(END_SECONDS)
    assert not served.is_mounted()


def test_a_mount_can_be_left_and_adopted(serve, tmp_path):
    first = serve()
    assert (tmp_path / "quick").read_bytes() == b"soon"
    file = (tmp_path / "big").open("rb")
    inherited = heritage(first.session)
    first.leave()
    assert first.ended.is_set()
    assert first.is_mounted()

    second = serve(inherited=inherited)
    assert second.device == first.device
    with file:
        assert file.read() == FILES[b"big"]
    assert names_in(tmp_path) == NAMES
    second.session.stop()
    assert not second.is_mounted()


def test_a_read_that_was_left_unanswered_is_sent_again_to_the_successor(serve, tmp_path):
    first = serve()
    inherited = heritage(first.session)
    if not inherited.offered & RESENDS:
        pytest.skip("the kernel cannot send requests again (before 6.9)")
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "slow-0").read_bytes)
        while first.session.waiting_reads == 0:
            pass
        first.leave()
        first.filesystem.release.set()
        second = serve(inherited=inherited)
        second.filesystem.release.set()
        assert read.result() == b"late"


def test_what_was_agreed_on_with_the_kernel_is_known_to_the_successor(serve):
    first = serve(zero_message_open=True)
    inherited = heritage(first.session)
    first.leave()

    second = serve(inherited=inherited)
    assert second.session.negotiation == (0, inherited.offered, inherited.accepted)


@pytest.mark.parametrize("is_prepared", [False, True], ids=["inherited", "prepared"])
def test_a_session_that_was_never_started_can_end_the_mount(serve, tmp_path, is_prepared):
    first = serve()
    inherited = heritage(first.session)
    first.leave()

    second = Session(Vfs(), tmp_path, inherited=inherited)
    if is_prepared:
        second.prepare()
    second.stop()
    assert not first.is_mounted()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inherited.fd)
    assert has_no_workers()


def test_a_prepared_session_takes_no_request_before_it_is_started(serve, tmp_path, fusectl):
    first = serve()
    second_inherits, third_inherits = (heritage(first.session, "none") for _ in range(2))
    first.leave()
    waiting = fusectl / str(first.device) / "waiting"
    second = serve.prepare(inherited=second_inherits)
    with ThreadPoolExecutor(1) as pool:
        read = pool.submit((tmp_path / "quick").read_bytes)
        while int(waiting.read_text()) == 0:
            pass
        second.leave()  # what it had taken nobody would answer: nothing is sent again
        serve(inherited=third_inherits)
        assert read.result(END_SECONDS) == b"soon"


def test_a_session_that_cannot_be_prepared_leaves_the_mount_to_who_serves_it(serve, tmp_path):
    first = serve()
    inherited = heritage(first.session)
    with pytest.raises(MountError, match="still run"):
        Session(Vfs(), tmp_path, inherited=inherited).prepare()
    assert (tmp_path / "big").read_bytes() == FILES[b"big"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(inherited.fd)


def test_a_descriptor_is_left_as_a_successor_of_the_other_kind_wants_it(serve):
    first = serve()
    inherited = heritage(first.session)
    assert os.get_blocking(inherited.fd)
    first.leave()
    assert not os.get_blocking(inherited.fd)
    serve(inherited=inherited)
    assert os.get_blocking(inherited.fd)


def test_sessions_can_follow_each_other_in_a_process(serve):
    for threads in (1, 3, 8):
        served = serve(threads=threads)
        assert (served.path / "quick").read_bytes() == b"soon"
        served.session.stop()
        assert not served.is_mounted()


def test_a_second_session_at_a_time_is_refused_and_leaves_no_mount(serve, tmp_path_factory):
    serve()
    other = tmp_path_factory.mktemp("other")
    with pytest.raises(MountError, match="still run"):
        Session(Vfs(), other).start()
    assert mount.device_at(other) is None


def test_a_start_that_cannot_find_its_mount_leaves_none(tmp_path, monkeypatch):
    def fail(_: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with monkeypatch.context() as patched:
        patched.setattr(mount, "device_at", fail)
        with pytest.raises(OSError, match="Too many open files"):
            Session(Vfs(), tmp_path).start()
    assert mount.device_at(tmp_path) is None


def test_a_start_that_gets_no_thread_leaves_no_mount(serve, tmp_path, monkeypatch):
    begin = threading.Thread.start

    def fail(thread: threading.Thread) -> None:
        if thread.name == "fuse_session":
            raise RuntimeError("can't start new thread")
        begin(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="new thread"):
            Session(Vfs(), tmp_path).start()
    assert mount.device_at(tmp_path) is None
    assert (serve().path / "quick").read_bytes() == b"soon"


IMPORT_FIRST = """
import sys
import llfuse
from nydusd.fs.vfs import Vfs
from nydusd.fuse.llfuse_session import Session
Session(Vfs(), sys.argv[1]).start()
"""


def test_an_llfuse_that_was_imported_first_is_found_out(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_FIRST, tmp_path], capture_output=True, text=True, check=False
    )
    assert "llfuse was imported before" in done.stderr
    assert mount.device_at(tmp_path) is None
