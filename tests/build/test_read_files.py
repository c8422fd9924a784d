import errno
import os

import pytest

from nydusd.build.read_files import read_files


def row(path, offset: int = 0, length: int | None = None, **changes: int):
    found = path.stat()
    size = changes.get("size", found.st_size)
    seconds, nanoseconds = divmod(found.st_mtime_ns, 10**9)
    length = size - offset if length is None else length
    return (os.fsencode(path), offset, length, size, seconds, nanoseconds)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    return path


def test_ranges_stand_side_by_side(file):
    buffer = bytearray(12)

    assert read_files([row(file, 2, 3), row(file, 0, 4)], buffer) is None

    assert buffer == b"2340123" + bytes(5)


def test_another_size_time_or_end_is_told(file):
    buffer = bytearray(100)
    path, offset, length, size, seconds, nanoseconds = row(file)

    for wrong in (
        (path, offset, 11, 11, seconds, nanoseconds),
        (path, offset, length, size + 1, seconds, nanoseconds),
        (path, offset, length, size, seconds, nanoseconds + 1),
    ):
        assert read_files([row(file), wrong], buffer) == (1, 0)


def test_a_missing_file_and_a_symlink_are_errors(file, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(file)
    found = row(file)

    assert read_files([(b"/nonexistent", *found[1:])], bytearray(10)) == (0, errno.ENOENT)
    assert read_files([(os.fsencode(link), *found[1:])], bytearray(10)) == (0, errno.ELOOP)


def test_a_buffer_that_is_too_small_is_refused(file):
    with pytest.raises(ValueError, match="longer than the buffer"):
        read_files([row(file)], bytearray(9))


def test_nothing_is_read_for_nothing():
    assert read_files([], bytearray(0)) is None
