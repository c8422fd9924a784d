"""A host directory through its file system: numbers, counts of the kernel, what is refused."""

from __future__ import annotations

import errno
import os
import random
import stat
from pathlib import Path

import pytest

from nydusd.fs.host_inodes import GIVEN, ROOT, HostInodes
from nydusd.fs.passthrough import PassthroughFs
from nydusd.fs.stat import Caller, Changes
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel, request
from tests.fuse.test_changes import ROWS

ME = Caller(os.geteuid(), os.getegid(), 0)


@pytest.fixture
def shared(tmp_path):
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


@pytest.fixture
def served(shared):
    filesystem = PassthroughFs(os.fspath(shared))
    yield filesystem
    filesystem.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def listed(filesystem: PassthroughFs, ino: int = ROOT, offset: int = 0) -> list[bytes]:
    handle = filesystem.open_directory(ino, 0).handle
    try:
        return [entry.name for entry in filesystem.entries(ino, handle, offset)]
    finally:
        filesystem.close_directory(ino, handle)


@pytest.mark.parametrize("source", ["missing", "file"])
def test_what_is_no_directory_cannot_be_served(tmp_path, source):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"\[Errno"):
        PassthroughFs(os.fspath(tmp_path / source))


def test_hard_links_are_one_inode(served, shared):
    (shared / "a").write_bytes(b"1")
    (shared / "b").hardlink_to(shared / "a")

    a, b = served.find(ROOT, b"a"), served.find(ROOT, b"b")

    assert a.ino == b.ino
    assert a.nlink == 2
    made = served.make_link(a.ino, ROOT, b"c")
    assert (made.ino, made.nlink) == (a.ino, 3)


def test_the_kernels_counts_hold_inodes_and_their_descriptors(served, shared):
    (shared / "a").write_bytes(b"1")
    before = descriptors()
    ino = served.find(ROOT, b"a").ino
    assert served.find(ROOT, b"a").ino == ino
    served.forget(ino, 1)
    assert served.stat(ino).size == 1
    served.forget(ino, 1)

    with pytest.raises(OSError, match=rf"\[Errno {errno.ESTALE}\]"):
        served.stat(ino)
    served.forget(ROOT, 1 << 60)
    assert served.stat(ROOT).ino == ROOT
    served.forget(ino, 5)
    assert descriptors() == before


def test_a_number_means_the_same_file_in_another_process(served, shared):
    (shared / "a").touch()
    other = PassthroughFs(os.fspath(shared))
    assert other.find(ROOT, b"a").ino == served.find(ROOT, b"a").ino
    other.close()


def test_numbers_fit_into_48_bits_whatever_the_host_has(tmp_path):
    inodes = HostInodes(os.open(tmp_path, os.O_PATH))
    device = tmp_path.stat().st_dev
    numbers = [inodes.shown(dev, ino) for dev in (device, device + 1) for ino in (1, 7, 2**64 - 1)]
    assert all(ROOT < number < 1 << 48 for number in numbers)
    assert numbers[1] != numbers[4]
    assert numbers[2] & GIVEN
    inodes.close()


@pytest.mark.parametrize("name", [b"..", b".", b"", b"a/b", b"/etc"])
def test_no_name_leads_out_of_the_directory(served, name):
    with pytest.raises(OSError, match=rf"\[Errno {errno.EINVAL}\]"):
        served.find(ROOT, name)


def test_pipes_and_links_are_not_opened(served, shared):
    os.mkfifo(shared / "pipe")
    (shared / "link").symlink_to("/etc/passwd")
    for name in (b"pipe", b"link"):
        ino = served.find(ROOT, name).ino
        with pytest.raises(OSError, match=rf"\[Errno {errno.ENXIO}\]"):
            served.open_file(ino, os.O_RDONLY)
    with pytest.raises(IsADirectoryError):
        served.open_file(ROOT, os.O_RDONLY)
    assert served.read_link(served.find(ROOT, b"link").ino) == b"/etc/passwd"


def test_a_create_never_follows_a_link(served, shared, tmp_path):
    (tmp_path / "outside").write_bytes(b"kept")
    (shared / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match=r"\[Errno"):
        served.create_file(ROOT, b"link", 0o644, os.O_RDWR | os.O_TRUNC, ME)
    assert (tmp_path / "outside").read_bytes() == b"kept"


def test_a_create_that_meets_a_pipe_does_not_wait(served, shared):
    os.mkfifo(shared / "pipe")
    with pytest.raises(OSError, match=rf"\[Errno {errno.ESTALE}\]"):
        served.create_file(ROOT, b"pipe", 0o644, os.O_WRONLY, ME)
    assert served.open_files == 0


def test_an_open_file_lives_on_without_a_name(served, shared):
    info, opened = served.create_file(ROOT, b"f", 0o600, os.O_RDWR, ME)
    served.write_file(info.ino, opened.handle, 0, memoryview(b"data"), os.O_RDWR, False)
    served.remove_file(ROOT, b"f")

    assert served.read_file(info.ino, opened.handle, 1, 10) == b"ata"
    assert served.stat(info.ino).nlink == 0
    assert served.change_attributes(info.ino, opened.handle, Changes(size=2)).size == 2
    served.close_file(info.ino, opened.handle)
    served.forget(info.ino, 1)
    assert served.open_files == 0
    assert served.known_inodes == 1


def test_a_handle_of_another_file_is_refused(served, shared):
    for name in ("a", "b"):
        (shared / name).write_bytes(name.encode())
    a, b = served.find(ROOT, b"a").ino, served.find(ROOT, b"b").ino
    handle = served.open_file(a, os.O_RDONLY).handle
    with pytest.raises(OSError, match=rf"\[Errno {errno.EBADF}\]"):
        served.read_file(b, handle, 0, 1)


def test_what_may_be_held_open_is_bounded_and_said_once(shared, caplog):
    for number in range(8):
        (shared / str(number)).touch()
    filesystem = PassthroughFs(os.fspath(shared), limit=3, uses_handles=False)
    for number in range(3):
        filesystem.find(ROOT, b"%d" % number)
    for number in (3, 4):
        with pytest.raises(OSError, match=rf"\[Errno {errno.EMFILE}\]"):
            filesystem.find(ROOT, b"%d" % number)
    assert filesystem.find(ROOT, b"1") is not None  # known already
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "--rlimit-nofile" in caplog.text
    filesystem.close()


@pytest.fixture
def narrow(shared):
    """A file system that may hold two files open; skipped where the host has no handles."""
    filesystem = PassthroughFs(os.fspath(shared), limit=2)
    if filesystem._inodes._mount_fd < 0:
        filesystem.close()
        pytest.skip("this host cannot open files by handles")
    yield filesystem
    filesystem.close()


def test_files_beyond_the_limit_are_closed_and_opened_again(narrow, shared):
    inos = []
    for number in range(20):
        (shared / str(number)).write_bytes(b"%d" % number)
        inos.append(narrow.find(ROOT, b"%d" % number).ino)
    (shared / "7").rename(shared / "elsewhere")

    for number, ino in enumerate(inos):
        handle = narrow.open_file(ino, os.O_RDONLY).handle
        assert narrow.read_file(ino, handle, 0, 10) == b"%d" % number
        narrow.close_file(ino, handle)
    assert narrow.held_inodes == 2
    assert narrow.known_inodes == 21
    assert [narrow.find(ROOT, b"%d" % number).ino for number in (3, 19)] == [inos[3], inos[19]]


def test_a_file_that_was_closed_and_is_gone_is_stale_and_its_number_not_given_again(narrow, shared):
    for number in range(10):
        (shared / str(number)).touch()
    inos = {narrow.find(ROOT, b"%d" % number).ino for number in range(10)}
    for number in range(8):
        (shared / str(number)).unlink()
    fresh = set()
    for number in range(100, 130):  # some of them get the inodes of those that are gone
        (shared / str(number)).touch()
        fresh.add(narrow.find(ROOT, b"%d" % number).ino)
    assert len(fresh) == 30
    assert not fresh & inos
    for ino in sorted(inos - {narrow.find(ROOT, name).ino for name in (b"8", b"9")}):
        with pytest.raises(OSError, match=rf"\[Errno {errno.ESTALE}\]"):
            narrow.stat(ino)
        narrow.forget(ino, 1)


def test_what_is_open_is_not_closed(narrow, shared):
    info, opened = narrow.create_file(ROOT, b"f", 0o600, os.O_RDWR, ME)
    narrow.remove_file(ROOT, b"f")
    for number in range(10):
        (shared / str(number)).touch()
        narrow.find(ROOT, b"%d" % number)
    assert narrow.stat(info.ino).nlink == 0
    narrow.write_file(info.ino, opened.handle, 0, memoryview(b"x"), os.O_RDWR, False)


def test_a_listing_is_the_hosts_and_goes_on_while_names_go(served, shared):
    names = [b"%04d-%s" % (number, b"x" * 40) for number in range(1500)]
    for name in names:
        (shared / os.fsdecode(name)).touch()
    handle = served.open_directory(ROOT, 0).handle
    listing = iter(served.entries(ROOT, handle, 0))
    first = [next(listing) for _ in range(700)]
    for entry in first[5:600]:
        if entry.name not in (b".", b".."):
            (shared / os.fsdecode(entry.name)).unlink()
    rest = list(served.entries(ROOT, handle, first[-1].next_offset))
    seen = [entry.name for entry in first + rest]
    assert sorted(set(seen) - {b".", b".."}) == names
    assert len(seen) == len(set(seen))
    assert next(e for e in first if e.name == b"..").ino == ROOT
    shown = {entry.name: entry.ino for entry in rest}
    assert all(served.find(ROOT, name).ino == shown[name] for name in list(shown)[-3:])


def test_a_listing_from_the_start_shows_what_is_new(served, shared):
    handle = served.open_directory(ROOT, 0).handle
    assert len(list(served.entries(ROOT, handle, 0))) == 2
    (shared / "new").touch()
    assert b"new" in {entry.name for entry in served.entries(ROOT, handle, 0)}


def test_what_the_kernel_cached_is_kept_while_the_file_is_unchanged(served, shared):
    (shared / "f").write_bytes(b"1234")
    ino = served.find(ROOT, b"f").ino
    os.utime(shared / "f", ns=(10**18, 10**18))
    kept = [served.open_file(ino, os.O_RDONLY).keep_cache for _ in range(3)]
    os.utime(shared / "f", ns=(10**18, 10**18 + 1))
    kept.append(served.open_file(ino, os.O_RDONLY).keep_cache)
    (shared / "f").write_bytes(b"5678")  # just now: may change again within the same tick
    kept += [served.open_file(ino, os.O_RDONLY).keep_cache for _ in range(3)]
    assert kept == [False, True, True, False, False, False, False]


class TestSuccessor:
    """What the kernel knows of a predecessor is found again."""

    @pytest.fixture
    def tree(self, shared):
        (shared / "a/b").mkdir(parents=True)
        (shared / "a/b/f").write_bytes(b"content")
        (shared / "a/b/l").symlink_to("f")
        return shared

    def test_inodes_and_handles_go_on(self, tree):
        old = PassthroughFs(os.fspath(tree))
        a = old.find(ROOT, b"a")
        b = old.find(a.ino, b"b")
        f, link = old.find(b.ino, b"f"), old.find(b.ino, b"l")
        new = PassthroughFs(os.fspath(tree), recovers=True)

        assert new.stat(f.ino) == f
        assert new.read_link(link.ino) == b"f"
        assert new.read_file(f.ino, 4711, 2, 3) == b"nte"
        assert new.write_file(f.ino, 4711, 0, memoryview(b"C"), os.O_RDWR, False) == 1
        assert {e.name for e in new.entries(b.ino, 815, 0)} == {b".", b"..", b"f", b"l"}
        assert new.find(a.ino, b"b").ino == b.ino
        assert new.open_files == 2
        new.close_file(f.ino, 4711)
        new.close_directory(b.ino, 815)
        for ino in (a.ino, b.ino, f.ino, link.ino):
            new.forget(ino, 3)
        assert (new.known_inodes, new.open_files) == (1, 0)
        old.close()

    def test_what_is_gone_is_stale(self, tree):
        old = PassthroughFs(os.fspath(tree))
        ino = old.find(ROOT, b"a").ino
        gone, _ = old.create_file(ROOT, b"gone", 0o600, os.O_RDWR, ME)
        old.remove_file(ROOT, b"gone")
        new = PassthroughFs(os.fspath(tree), recovers=True)
        for number in (gone.ino, ino + (1 << 40), 1 << 47):
            with pytest.raises(OSError, match=rf"\[Errno {errno.ESTALE}\]"):
                new.stat(number)
        old.close()


def test_special_files_keep_kind_and_device(served, shared):
    os.mkfifo(shared / "pipe", 0o640)
    served.make_node(ROOT, b"socket", stat.S_IFSOCK | 0o600, 0, ME)
    assert stat.S_ISFIFO(served.find(ROOT, b"pipe").mode)
    assert stat.S_ISSOCK(os.lstat(shared / "socket").st_mode)


def test_the_mount_that_shows_the_directory_is_not_entered(shared):
    (shared / "sub").mkdir()
    filesystem = PassthroughFs(os.fspath(shared), own_device=lambda: shared.stat().st_dev)
    with pytest.raises(OSError, match=rf"\[Errno {errno.ELOOP}\]"):
        filesystem.find(ROOT, b"sub")
    assert filesystem.known_inodes == 1


OPCODES = sorted({row[0] for row in ROWS.values()} | {wire.LOOKUP, wire.OPEN, wire.OPENDIR})
OPCODES += [wire.READ, wire.READDIR, wire.READDIRPLUS, wire.GETATTR, wire.READLINK, wire.FORGET]
OPCODES += [wire.RELEASE, wire.GETXATTR, wire.LISTXATTR, wire.STATFS]


def test_requests_that_the_kernel_would_not_send_do_no_harm(shared, tmp_path):
    (shared / "d").mkdir()
    (shared / "f").write_bytes(b"data")
    os.mkfifo(shared / "pipe")
    (shared / "out").symlink_to("..")
    (tmp_path / "outside").write_bytes(b"kept")
    vfs = Vfs()
    vfs.mount(PassthroughFs(os.fspath(shared)), "/")
    deferred = DeferredReads(vfs)
    deferred.start()
    kernel = Kernel(Server(vfs, deferred))
    rng = random.Random(3)
    found = [kernel.ask(wire.LOOKUP, name + b"\0") for name in (b"d", b"f", b"pipe", b"out")]
    nodes = [1, *(wire.entry_of(answer)[0] for answer in found)]
    words = [b"..", b".", b"../outside", b"d", b"f", b"pipe", b"out", b"/", b"new", b"x" * 300]
    for _ in range(3000):
        opcode, node = rng.choice(OPCODES), rng.choice([*nodes, rng.getrandbits(64)])
        fixed = rng.choice([0, 8, 16, 24, 32, 40, 56, 88])
        arg = rng.choice([bytes(fixed), rng.randbytes(fixed)])
        arg += b"\0".join(rng.choices(words, k=rng.randrange(3))) + b"\0"
        if opcode == wire.READ and len(arg) >= 40:  # answered by another thread, later
            arg = wire.read_arg(rng.choice([0, 2**63, 2**64 - 1]), 4096, rng.getrandbits(64))
        kernel.send(request(opcode, arg, node))
        if opcode != wire.FORGET:
            assert kernel.receive()[0] == wire.UNIQUE
    assert {path.name for path in tmp_path.iterdir()} == {"outside", "shared"}
    assert (tmp_path / "outside").read_bytes() == b"kept"
    deferred.stop(-errno.EIO)
    kernel.close()


def test_nothing_stays_open_at_the_end(shared):
    for number in range(20):
        (shared / str(number)).write_bytes(b"x")
    before = descriptors()
    filesystem = PassthroughFs(os.fspath(shared), recovers=True)
    for number in range(20):
        filesystem.open_file(filesystem.find(ROOT, b"%d" % number).ino, os.O_RDONLY)
    listed(filesystem)
    filesystem.close()
    del filesystem
    assert descriptors() == before
