import pytest

from nydusd.base.errors import CacheError
from nydusd.cache.blobfile import BlobFile, has_data


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
