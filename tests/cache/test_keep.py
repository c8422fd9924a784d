"""What of a fetch is written to the cache file, and what when the disk takes nothing."""

import logging
import os
import resource
import subprocess

import pytest

from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, chunks, device


def test_the_good_chunks_of_a_range_with_a_corrupt_one_are_kept(tmp_path):
    blob = MadeBlob(chunks([4096] * 4), 6, Compressor.NONE)
    blob.data[2 * 4096 + 7] ^= 1
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(0)]) == blob.chunks[0]
    assert [with_cache.blobs[0].chunks.ready(i) for i in range(4)] == [True, True, False, True]
    kept = (tmp_path / f"{blob.blob_id}.blob.data").read_bytes()
    assert kept[8192:12288] == bytes(4096)
    with_cache.close()


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=128k", "nydusd-test", str(folder)], check=True
    )
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@pytest.mark.parametrize("batch_size", [0, 1 << 20])
def test_a_full_disk_disturbs_no_read_and_is_logged_once(small_disk, caplog, batch_size):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk, batch_size)
    with caplog.at_level(logging.WARNING, "nydusd"):
        for _ in range(2):
            for index in range(10):
                assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
            assert read_spans(with_cache, blob.spans()) == blob.content
    assert sum("cannot be kept in" in record.getMessage() for record in caplog.records) == 1
    with_cache.close()


@pytest.mark.root
def test_nothing_is_fetched_along_while_the_disk_is_full(small_disk, caplog):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk, 1 << 20)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(100 << 10))
    for index in (0, 1, 2):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert [size for _, size in backend.data_requests(blob)][1:] == [40000] * 2
    filler.unlink()
    for index in (3, 4):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert backend.data_requests(blob)[-1][1] > 40000
    assert "reads go on" in caplog.text
    with_cache.close()


def test_nothing_is_fetched_along_for_a_file_that_was_cut(tmp_path):
    blob = MadeBlob(chunks([40000] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, blob.spans()) == blob.content
    os.truncate(tmp_path / f"{blob.blob_id}.blob.data", 0)
    backend.requests.clear()
    for index in range(3):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert [size for _, size in backend.requests] == [40000] * 3
    with_cache.close()


@pytest.mark.root
def test_a_read_only_disk_serves_what_it_has_and_the_rest_from_the_backend(small_disk, caplog):
    blob = MadeBlob(chunks([4096] * 10), compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, small_disk)
    read_spans(with_cache, blob.spans()[:5])
    with_cache.close()
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    requests = len(backend.requests)
    with_cache = device(blob, backend, small_disk)
    for _ in range(2):
        assert read_spans(with_cache, blob.spans()[:5]) == b"".join(blob.chunks[:5])
    assert len(backend.requests) == requests
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()
    other = MadeBlob(chunks([4096] * 3), blob_id="c" * 64)
    with_cache = device(other, MadeBackend(other), small_disk)
    assert read_spans(with_cache, other.spans()) == other.content
    with_cache.close()
    assert "reads go on" in caplog.text


def test_a_directory_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").touch()
    blob = MadeBlob(chunks())
    with_cache = device(blob, MadeBackend(blob), tmp_path / "file" / "work")
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert "reads go on" in caplog.text
    with_cache.close()


def test_what_came_along_and_was_kept_is_let_be_when_what_is_needed_was_not(tmp_path, caplog):
    blob = MadeBlob(chunks([4096] * 8), compressor=Compressor.NONE)
    with_cache = device(blob, MadeBackend(blob), tmp_path, batch_size=1 << 20)
    cached = with_cache.blobs[0]
    cached.load_description()
    assert cached.chunks.try_claim(7)  # by another fetch, as it seems
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6 * 4096, limits[1]))
    try:
        assert read_spans(with_cache, blob.spans()[6:]) == b"".join(blob.chunks[6:])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [cached.chunks.ready(index) for index in range(8)] == [True] * 6 + [False] * 2
    cached.chunks.give_up(7)
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()
    assert "reads go on" in caplog.text
