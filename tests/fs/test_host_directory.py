"""Files of a host directory by descriptors: nothing leads out, owners are as asked for."""

from __future__ import annotations

import errno
import os
import stat
import threading

import pytest

from nydusd.fs import host_directory as host
from nydusd.fs.host_calls import ActingAs
from nydusd.fs.stat import NOW, Caller, Changes

ME = Caller(os.geteuid(), os.getegid(), 0)
OTHER = Caller(12345, 23456, 0)


@pytest.fixture
def root(tmp_path):
    fd = host.open_root(os.fspath(tmp_path))
    yield fd
    os.close(fd)


@pytest.fixture
def at(root):
    """Descriptors of names in the directory, closed at the end."""
    opened = []

    def look(name: bytes) -> int:
        opened.append(host.look(root, name))
        return opened[-1]

    yield look
    for fd in opened:
        os.close(fd)


def test_a_link_is_looked_at_and_not_followed(root, at, tmp_path):
    (tmp_path / "link").symlink_to("/etc/passwd")

    fd = at(b"link")

    assert stat.S_ISLNK(os.fstat(fd).st_mode)
    assert host.read_link(fd) == b"/etc/passwd"
    with pytest.raises(OSError, match=r"symbolic links"):
        host.open_again(fd, os.O_RDONLY)
    with pytest.raises(OSError, match=rf"\[Errno {errno.ESTALE}\]"):
        os.close(host.create(root, b"link", 0o644, os.O_RDWR, ME))


def test_attributes_of_a_link_are_its_own(at, tmp_path):
    (tmp_path / "target").write_bytes(b"12")
    (tmp_path / "link").symlink_to("target")
    fd = at(b"link")

    host.change_attributes(fd, None, Changes(atime_ns=5, mtime_ns=7_000_000_009))

    assert os.lstat(tmp_path / "link").st_mtime_ns == 7_000_000_009
    assert (tmp_path / "target").stat().st_mtime_ns != 7_000_000_009
    with pytest.raises(OSError, match=r"\[Errno"):
        host.change_attributes(fd, None, Changes(mode=0o600))


def test_times_stay_where_none_is_given(at, tmp_path):
    os.utime(tmp_path, ns=(1, 2))
    (tmp_path / "f").write_bytes(b"")
    os.utime(tmp_path / "f", ns=(11, 22))

    host.change_attributes(at(b"f"), None, Changes(mtime_ns=-1_000_000_001))
    found = (tmp_path / "f").stat()
    assert (found.st_atime_ns, found.st_mtime_ns) == (11, -1_000_000_001)
    host.change_attributes(at(b"f"), None, Changes(atime_ns=NOW))
    found = (tmp_path / "f").stat()
    assert found.st_atime_ns > 10**18
    assert found.st_mtime_ns == -1_000_000_001


def test_a_new_file_has_exactly_the_mode_asked_for(root, tmp_path):
    os.close(host.create(root, b"f", 0o100666, os.O_RDWR | os.O_EXCL, ME))
    host.make_directory(root, b"d", 0o777, ME)
    host.make_node(root, b"n", stat.S_IFIFO | 0o606, 0, ME)

    modes = [os.lstat(tmp_path / name).st_mode for name in "fdn"]
    assert modes == [stat.S_IFREG | 0o666, stat.S_IFDIR | 0o777, stat.S_IFIFO | 0o606]


def test_the_umask_of_other_threads_stays():
    before = os.umask(0o27)
    seen = []

    def act() -> None:
        with ActingAs(ME.uid, ME.gid):
            seen.extend([os.umask(0), main_umask()])
        seen.append(os.umask(0o27))

    def main_umask() -> int:
        asked.set()
        answered.wait(10)
        return masks[0]

    asked, answered, masks = threading.Event(), threading.Event(), []
    thread = threading.Thread(target=act)
    thread.start()
    assert asked.wait(60)
    masks.append(os.umask(before))
    answered.set()
    thread.join()
    assert seen == [0, 0o27, 0o27]


@pytest.mark.root
def test_what_is_made_belongs_to_the_caller_even_where_he_may_not_write(root, tmp_path):
    tmp_path.chmod(0o500)
    os.close(host.create(root, b"f", 0o600, os.O_RDWR, OTHER))
    host.make_directory(root, b"d", 0o700, OTHER)
    host.make_symlink(root, b"l", b"t", OTHER)
    host.make_node(root, b"n", stat.S_IFCHR | 0o600, host.device_number(os.makedev(1, 3)), OTHER)

    owners = {(os.lstat(tmp_path / n).st_uid, os.lstat(tmp_path / n).st_gid) for n in "fdln"}
    assert owners == {(OTHER.uid, OTHER.gid)}
    (tmp_path / "mine").write_bytes(b"")
    assert (tmp_path / "mine").stat().st_uid == ME.uid  # the thread is itself again
    os.chown(tmp_path / "mine", 1, 1)  # and may what it may


@pytest.mark.root
def test_a_directory_with_the_set_group_id_bit_gives_its_group(root, tmp_path):
    os.chown(tmp_path, -1, 777)
    tmp_path.chmod(0o2777)
    os.close(host.create(root, b"f", 0o600, os.O_RDWR, OTHER))
    assert (tmp_path / "f").stat().st_gid == 777


@pytest.mark.parametrize("device", [(0, 0), (1, 3), (8, 255), (259, 1048575)])
def test_device_numbers_come_back(device):
    number = os.makedev(*device)
    assert host.host_device(host.device_number(number)) == number
    assert host.device_number(number) < 1 << 32


def test_writes_in_append_mode_go_to_the_end(root, tmp_path):
    (tmp_path / "f").write_bytes(b"0123")
    fd = os.open(tmp_path / "f", os.O_RDWR)
    assert host.write(fd, memoryview(b"45"), 0, os.O_RDWR | os.O_APPEND) == 2
    assert host.write(fd, memoryview(b"X"), 0, os.O_RDWR) == 1
    os.close(fd)
    assert (tmp_path / "f").read_bytes() == b"X12345"


@pytest.mark.parametrize(("mode", "kept"), [(0o6755, 0o755), (0o2644, 0o2644), (0o4600, 0o600)])
def test_privileges_are_dropped_as_the_kernel_does(at, tmp_path, mode, kept):
    (tmp_path / "f").write_bytes(b"data")
    (tmp_path / "f").chmod(mode)
    host.change_attributes(at(b"f"), None, Changes(size=1, kills_privileges=True))
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == kept


def test_a_size_that_cannot_be_is_efbig(at, tmp_path):
    (tmp_path / "f").write_bytes(b"data")
    with pytest.raises(OSError, match=rf"\[Errno {errno.EFBIG}\]"):
        host.change_attributes(at(b"f"), None, Changes(size=1 << 63))


def test_a_listing_goes_on_at_any_offset_while_names_go(tmp_path):
    for number in range(3000):
        (tmp_path / f"{number:05}-{'x' * 30}").touch()
    fd = os.open(tmp_path, os.O_RDONLY)
    first = host.list_directory(fd)
    assert 2 < len(first) < 3000
    rest = []
    while some := host.list_directory(fd):
        rest += some
    names = sorted(row[0] for row in first + rest if row[0] not in (b".", b".."))
    assert names == sorted(map(os.fsencode, (path.name for path in tmp_path.iterdir())))
    middle = first[len(first) // 2]
    for name, *_ in first[: len(first) // 2]:
        if name not in (b".", b".."):
            (tmp_path / os.fsdecode(name)).unlink()
    os.lseek(fd, middle[2], os.SEEK_SET)
    again = host.list_directory(fd)
    os.close(fd)
    assert again[0] == first[len(first) // 2 + 1]


def test_a_name_may_change_places_with_another(root, tmp_path):
    (tmp_path / "a").write_bytes(b"a")
    (tmp_path / "b").write_bytes(b"b")
    with pytest.raises(FileExistsError):
        host.rename(root, b"a", root, b"b", 1)
    host.rename(root, b"a", root, b"b", 2)
    assert (tmp_path / "a").read_bytes() == b"b"


def test_attributes_of_users_come_back(at, tmp_path):
    (tmp_path / "f").write_bytes(b"")
    fd = at(b"f")
    host.set_xattr(fd, b"user.\xff", b"va\0ue", 0)
    assert host.list_xattrs(fd) == [b"user.\xff"]
    assert host.get_xattr(fd, b"user.\xff") == b"va\0ue"
    host.remove_xattr(fd, b"user.\xff")
    with pytest.raises(OSError, match=rf"\[Errno {errno.ENODATA}\]"):
        host.get_xattr(fd, b"user.\xff")
