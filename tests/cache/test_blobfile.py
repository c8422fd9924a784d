import os

import pytest

from nydusd.base.errors import CacheError
from nydusd.cache.blobfile import BlobFile, has_data, is_at_hand


def test_a_new_file_has_its_final_length_and_no_blocks(tmp_path):
    file = BlobFile(tmp_path / "data", 1 << 30)
    assert (tmp_path / "data").stat().st_size == 1 << 30
    assert (tmp_path / "data").stat().st_blocks == 0
    file.close()
    file.close()


def test_a_shorter_file_is_extended_and_a_longer_one_refused(tmp_path):
    path = tmp_path / "data"
    path.write_bytes(b"abc")
    BlobFile(path, 10).close()
    assert path.read_bytes() == b"abc" + bytes(7)
    with pytest.raises(CacheError, match="has 10 bytes, 9 are due"):
        BlobFile(path, 9)
    assert path.stat().st_size == 10


def test_a_read_only_file_is_taken_as_it_is(tmp_path):
    path = tmp_path / "data"
    with pytest.raises(OSError, match="No such file"):
        BlobFile(path, 3, read_only=True)
    path.write_bytes(b"abc")
    assert not BlobFile(path, 3, read_only=True).keeps
    with pytest.raises(CacheError, match="3 bytes, 4 are due"):
        BlobFile(path, 4, read_only=True)


def test_an_empty_blob_needs_no_mapping(tmp_path):
    BlobFile(tmp_path / "data", 0).close()


def test_what_a_map_may_promise_needs_a_whole_file_with_blocks(tmp_path):
    path = tmp_path / "data"
    assert not has_data(path, 10)
    path.write_bytes(b"x" * 9)
    assert not has_data(path, 10)
    path.write_bytes(b"x" * 10)
    assert has_data(path, 10)
    path.unlink()
    BlobFile(path, 10).close()
    assert not has_data(path, 10)


def test_a_range_is_at_hand_when_all_of_its_pages_are_in_memory(tmp_path):
    size = 1 << 20
    path = tmp_path / "data"
    path.write_bytes(bytes(size - 1))
    fd = os.open(path, os.O_RDWR)
    try:
        if not is_at_hand(fd, 0, 1):
            pytest.skip("the kernel does not count cached pages (cachestat, Linux 6.5)")
        assert is_at_hand(fd, 4095, 2)
        assert is_at_hand(fd, 100, size - 101)
        assert not is_at_hand(fd, 100, size - 100)  # the file ends before
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if is_at_hand(fd, 0, 1):
            pytest.skip("this file system keeps its pages in memory")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        os.pread(fd, 1, 0)
        os.pread(fd, 1, size - 2)
        assert is_at_hand(fd, 0, 4096)
        assert not is_at_hand(fd, 0, size - 1)
        os.pread(fd, size, 0)
        assert is_at_hand(fd, 0, size - 1)
    finally:
        os.close(fd)
