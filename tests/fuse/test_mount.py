"""Where a mount may be put, and that it is found and taken away again."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

from nydusd.base.errors import MountError
from nydusd.fuse import mount


@pytest.mark.parametrize("path", ["/dev/fd/0", "/dev/fd", "/proc/self/fd/0", "/proc/self/cwd"])
def test_a_path_of_each_process_is_refused(path):
    with pytest.raises(MountError, match="not a place for a file system"):
        mount.check_mountpoint(path)


def test_a_link_into_proc_is_refused(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("/proc/self")
    with pytest.raises(MountError, match="not a place for a file system"):
        mount.check_mountpoint(link)


def test_a_missing_mountpoint_and_a_file_are_refused(tmp_path):
    with pytest.raises(MountError, match="No such file"):
        mount.check_mountpoint(tmp_path / "none")
    file = tmp_path / "file"
    file.write_bytes(b"")
    with pytest.raises(MountError, match="not a directory"):
        mount.check_mountpoint(file)


def test_a_directory_is_taken_without_its_links(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")

    assert mount.check_mountpoint(tmp_path / "link") == (tmp_path / "real").resolve()


def test_fields_of_the_mount_table_are_unescaped():
    assert mount.unescape(r"/a\040b\134c") == r"/a b\c"


def test_nothing_is_found_where_nothing_is_mounted(tmp_path):
    assert mount.device_at(tmp_path) is None
    assert not mount.unmount(tmp_path, 1)


def test_without_a_helper_the_error_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MountError, match="no fusermount3"):
        mount.fusermount()


@pytest.mark.root
@pytest.mark.fuse
class TestRealMount:
    @pytest.mark.parametrize("writable", [False, True])
    def test_the_options_are_those_that_clients_expect(self, tmp_path, writable):
        place = tmp_path / "a mount"
        place.mkdir()
        fd = mount.mount_fuse(place, writable=writable)
        try:
            device = mount.device_at(place)
            assert device is not None
            table = Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines()
            line = next(line for line in table if str(tmp_path) in line)
            assert line.split(" ")[0] == "rafs"
            assert line.split(" ")[2:] == [
                "fuse",
                f"{'rw' if writable else 'ro'},nosuid,nodev,noatime,user_id=0,group_id=0,"
                "default_permissions,allow_other,max_read=1052672",
                "0",
                "0",
            ]
            assert not os.get_inheritable(fd)
            assert stat.S_ISCHR(os.fstat(fd).st_mode)
            assert not mount.unmount(place, device + 1)
            assert mount.unmount(place, device)
            assert mount.device_at(place) is None
        finally:
            os.close(fd)
            subprocess.run(["umount", "-lq", place], check=False, capture_output=True)
