import pytest

from nydusd.backend.localfs import LocalFsBackend
from nydusd.base.errors import BackendError, ConfigError
from nydusd.config.model import LocalFs
from tests.backend.reading import read


@pytest.fixture
def folders(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "one").write_bytes(b"0123456789")
    (tmp_path / "b" / "one").write_bytes(b"other")
    (tmp_path / "b" / "two").write_bytes(b"second")
    (tmp_path / "secret").write_bytes(b"secret")
    return tmp_path


def test_a_range_of_a_blob_in_a_folder(folders):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a")))
    assert read(backend, "one", 3, 4) == b"3456"
    reader = backend.reader("one")
    assert reader.size() == 10
    reader.close()
    reader.close()


def test_the_first_folder_that_has_the_blob_serves_it(folders):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a"), alt_dirs=(str(folders / "b"),)))
    assert read(backend, "one", 0, 3) == b"012"
    assert read(backend, "two", 0, 6) == b"second"


def test_one_file_for_every_blob_id(folders):
    backend = LocalFsBackend(LocalFs(blob_file=str(folders / "secret")))
    assert read(backend, "anything", 0, 6) == b"secret"


def test_a_missing_blob_names_every_path(folders):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a"), alt_dirs=(str(folders / "b"),)))
    with pytest.raises(BackendError, match=r"a/none \(No such file.*b/none"):
        backend.reader("none")


@pytest.mark.parametrize("blob_id", ["", ".", "..", "../secret", "/etc/passwd", "a\0b", "x" * 256])
def test_a_blob_id_cannot_leave_the_folder(folders, blob_id):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a")))
    with pytest.raises(BackendError, match="not a file name"):
        backend.reader(blob_id)


def test_a_blob_that_ends_inside_the_range_is_an_error(folders):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a")))
    with pytest.raises(BackendError, match="ends at 10"):
        read(backend, "one", 8, 4)


def test_offsets_no_file_has_are_an_error(folders):
    backend = LocalFsBackend(LocalFs(dir=str(folders / "a")))
    for offset in (1 << 62, 1 << 64):
        with pytest.raises(BackendError):
            read(backend, "one", offset, 4)


def test_neither_file_nor_folder_is_refused():
    with pytest.raises(ConfigError):
        LocalFsBackend(LocalFs())
