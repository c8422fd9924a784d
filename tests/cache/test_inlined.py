"""A bootstrap inside a blob of the backend: found by the blob's id, kept as `.image.boot`."""

import shutil
from pathlib import Path

import pytest

from nydusd.backend.localfs import LocalFsBackend
from nydusd.base.errors import BootstrapError
from nydusd.cache.inlined import find_bootstrap
from nydusd.config.model import LocalFs
from nydusd.rafs.load import load_bootstrap

BLOBS = Path(__file__).parents[1] / "golden" / "bootstraps" / "v6-inline-toc" / "blobs"
BLOB = min(BLOBS.iterdir())


class Counting:
    """A backend of BLOBS; `sizes` are those of what was read of it."""

    def __init__(self) -> None:
        self.backend = LocalFsBackend(LocalFs(dir=str(BLOBS)))
        self.sizes: list[int] = []
        self.closed = 0

    def reader(self, blob_id: str):
        reader = self.backend.reader(blob_id)
        read_into = reader.read_into

        def counted(buffer, offset, **settings):
            self.sizes.append(len(buffer))
            read_into(buffer, offset, **settings)

        reader.read_into = counted
        return reader

    def close(self) -> None:
        self.closed += 1


def found(path, folder, backend=None):
    return find_bootstrap(str(path), lambda: backend or Counting(), folder, validate=False)


@pytest.mark.parametrize("name", [BLOB.name, f"{BLOB.name}.image.boot"])
@pytest.mark.parametrize("there", [False, True])
def test_a_name_of_a_blob_gives_the_bootstrap_inside_it(tmp_path, name, there):
    path = tmp_path / name
    if there:
        path.write_bytes(b"not a bootstrap")
    bootstrap = found(path, tmp_path / "cache")
    direct = load_bootstrap(BLOB)
    assert bootstrap.blobs == direct.blobs
    assert bootstrap.blobs[0].blob_id == BLOB.name
    assert bootstrap.inodes_count == direct.inodes_count


def test_a_kept_bootstrap_is_used_again_and_a_damaged_one_is_not(tmp_path):
    kept = tmp_path / f"{BLOB.name}.image.boot"
    first, second, third = Counting(), Counting(), Counting()
    found(tmp_path / BLOB.name, tmp_path, first)
    good = kept.read_bytes()
    found(tmp_path / BLOB.name, tmp_path, second)
    assert len(second.sizes) == len(first.sizes) - 1
    kept.write_bytes(good[:-1] + b"!")
    found(tmp_path / BLOB.name, tmp_path, third)
    assert third.sizes == first.sizes
    assert kept.read_bytes() == good
    assert [first.closed, second.closed, third.closed] == [1, 1, 1]


def test_without_a_cache_directory_it_is_held_in_memory(tmp_path):
    assert found(tmp_path / BLOB.name, None).blobs[0].blob_id == BLOB.name
    assert not list(tmp_path.iterdir())


def test_a_bootstrap_file_needs_no_backend(tmp_path):
    shutil.copy(BLOB, tmp_path / BLOB.name)
    bootstrap = find_bootstrap(str(tmp_path / BLOB.name), pytest.fail, None, validate=False)
    assert bootstrap.blobs[0].blob_id == BLOB.name


def test_what_is_neither_file_nor_blob_fails_as_the_file_does(tmp_path):
    with pytest.raises(FileNotFoundError):
        found(tmp_path / "nowhere", tmp_path)
    (tmp_path / "text").write_text("text")
    with pytest.raises(BootstrapError, match="neither"):
        found(tmp_path / "text", tmp_path)
