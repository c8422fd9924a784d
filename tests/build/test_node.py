import os
import socket
import stat

import pytest

from nydusd.base.errors import BuildError
from nydusd.build.node import is_storable, node_from_path


def look(path) -> object:
    return node_from_path(os.fsencode(path), b"name", explicit_uid_gid=True)


def test_attributes_of_a_file_are_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    path.chmod(0o4640)
    os.utime(path, ns=(0, 2**33 * 10**9 + 7))

    node = look(path)

    assert node.mode == stat.S_IFREG | 0o4640
    assert (node.size, node.mtime, node.mtime_nsec) == (5, 2**33, 7)
    assert (node.uid, node.gid) == (os.getuid(), os.getgid())
    assert node.identity is None


def test_times_before_1970_are_kept(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    os.utime(path, ns=(0, -5 * 10**9 + 1))

    node = look(path)

    assert (node.mtime, node.mtime_nsec) == (-5, 1)


def test_owners_are_left_out_on_request(tmp_path):
    node = node_from_path(os.fsencode(tmp_path), b"n", explicit_uid_gid=False)

    assert (node.uid, node.gid) == (0, 0)


def test_names_of_one_file_have_one_identity(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    os.link(tmp_path / "a", tmp_path / "b")

    assert look(tmp_path / "a").identity == look(tmp_path / "b").identity is not None


def test_every_kind_is_looked_at_and_not_opened(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))

    assert stat.S_ISFIFO(look(tmp_path / "fifo").mode)
    assert stat.S_ISSOCK(look(tmp_path / "socket").mode)
    assert look(tmp_path / "link").target == b"nowhere"
    assert look(tmp_path).children == []


def test_what_vanished_is_named(tmp_path):
    with pytest.raises(BuildError, match="gone: vanished while it was packed"):
        look(tmp_path / "gone")


def test_attributes_are_sorted_by_name(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"")
    try:
        for name in ("user.z", "user.a", "user.m"):
            os.setxattr(path, name, name.encode())
    except OSError as exc:
        pytest.skip(f"no user attributes here: {exc}")

    assert [name for name, _ in look(path).xattrs] == [b"user.a", b"user.m", b"user.z"]


@pytest.mark.parametrize(
    ("name", "storable"),
    [
        (b"user.x", True),
        (b"user.", False),
        (b"trusted.x", True),
        (b"security.capability", True),
        (b"system.posix_acl_access", True),
        (b"system.posix_acl_default", True),
        (b"system.other", False),
        (b"user." + b"x" * 250, True),
        (b"user." + b"x" * 251, False),
    ],
    ids=str,
)
def test_which_attributes_an_image_can_hold(name, storable):
    assert is_storable(name) is storable
