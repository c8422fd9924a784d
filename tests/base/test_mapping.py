import os
import subprocess
import sys

import pytest

from nydusd.base.mapping import Mapping


@pytest.fixture
def mapped(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 64)
    fd = os.open(path, os.O_RDWR)
    yield path, fd, Mapping(fd)
    os.close(fd)


def test_bytes_are_read_inside_the_file(mapped):
    _, _, mapping = mapped

    assert mapping.size == 16384
    assert mapping.read(254, 4) == b"\xfe\xff\x00\x01"
    assert mapping.read(16384, 0) == b""


@pytest.mark.parametrize(("off", "n"), [(16384, 1), (0, 16385), (2**64 - 1, 2), (1, 2**64 - 1)])
def test_reading_past_the_end_is_refused(mapped, off, n):
    _, _, mapping = mapped

    with pytest.raises(OSError, match="Input/output error"):
        mapping.read(off, n)


def test_an_empty_file_maps_to_nothing(tmp_path):
    (tmp_path / "empty").touch()
    fd = os.open(tmp_path / "empty", os.O_RDONLY)
    mapping = Mapping(fd)
    os.close(fd)

    assert mapping.size == 0
    with pytest.raises(OSError, match="Input/output error"):
        mapping.read(0, 1)


def test_a_copy_of_bytes_reads_like_a_file():
    assert Mapping.of_bytes(b"hello").read(1, 3) == b"ell"
    assert Mapping.of_bytes(b"").size == 0


def test_nothing_is_readable_after_close(mapped):
    _, _, mapping = mapped
    mapping.close()

    with pytest.raises(OSError, match="Input/output error"):
        mapping.read(0, 1)


# In a process of its own: pytest's faulthandler reports the signal although it is handled.
CUT_FILE = """
import os, sys
from nydusd.base.mapping import Mapping
fd = os.open(sys.argv[1], os.O_RDWR)
mapping = Mapping(fd)
os.ftruncate(fd, 4096)
assert mapping.read(0, 4) == bytes(range(4)) and not mapping.damaged
assert mapping.read(8192, 4) == bytes(4) and mapping.damaged
assert mapping.read(12288, 4) == bytes(4)
"""


def test_a_file_cut_under_the_mapping_reads_as_zeros_and_is_told(mapped):
    path, _, _ = mapped

    done = subprocess.run([sys.executable, "-c", CUT_FILE, path], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_a_sigbus_elsewhere_still_ends_the_process(mapped):
    path, _, _ = mapped
    script = """
import mmap, os, sys
from nydusd.base.mapping import Mapping
fd = os.open(sys.argv[1], os.O_RDWR)
Mapping(fd)
other = mmap.mmap(fd, 16384)
os.ftruncate(fd, 0)
other[8192]
"""
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)

    assert done.returncode == -7
