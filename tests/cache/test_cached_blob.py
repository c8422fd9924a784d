"""The files of one blob: whose they are, and what others do to them."""

import logging
import os

import pytest

from nydusd.base.errors import CacheError
from nydusd.cache.span_reader import read_spans
from tests.cache.made import MAP_FILES, MadeBackend, MadeBlob, chunks, device, files


def test_a_deleted_data_file_takes_its_map_along(tmp_path, caplog):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    first = device(blob, backend, tmp_path)
    read_spans(first, blob.spans())
    (tmp_path / f"{blob.blob_id}.blob.data").unlink()
    second = device(blob, backend, tmp_path)
    assert "promises more" in caplog.text
    assert read_spans(second, blob.spans()) == blob.content
    requests = len(backend.requests)
    assert read_spans(first, blob.spans()) == blob.content  # goes on with its own files
    assert len(backend.requests) == requests
    first.close()
    second.close()


def test_a_data_file_made_anew_under_an_old_map_is_not_believed(tmp_path, caplog):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    first = device(blob, backend, tmp_path)
    read_spans(first, blob.spans())
    first.close()
    path = tmp_path / f"{blob.blob_id}.blob.data"
    path.unlink()
    path.touch()
    os.truncate(path, len(blob.plain))
    second = device(blob, backend, tmp_path)
    assert "promises more" in caplog.text
    assert read_spans(second, blob.spans()) == blob.content
    second.close()


def test_a_data_file_cut_under_a_reader_is_fetched_again_never_zeros(tmp_path):
    blob = MadeBlob(chunks([100000] * 8))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    read_spans(with_cache, blob.spans())
    path = tmp_path / f"{blob.blob_id}.blob.data"
    os.truncate(path, 4096)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert read_spans(with_cache, [blob.span(5), blob.span(0)]) == blob.chunks[5] + blob.chunks[0]
    # nothing is written there: others would take the holes for data
    assert path.stat().st_size == 4096
    with_cache.close()


def test_a_map_cut_under_a_reader_is_fetched_again(tmp_path):
    blob = MadeBlob(chunks([5000] * 8))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    read_spans(with_cache, blob.spans())
    os.truncate(tmp_path / f"{blob.blob_id}.blob.data.chunk_map", 0)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_blob_meta_that_somebody_put_there_is_used(tmp_path):
    blob = MadeBlob(chunks())
    backend = MadeBackend(blob)
    meta = blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    (tmp_path / f"{blob.blob_id}.blob.meta").write_bytes(meta)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert backend.requests == backend.data_requests(blob)
    with_cache.close()


@pytest.mark.parametrize("content", [b"", b"x" * 100, bytes(8192), b"y" * 8192])
def test_a_broken_blob_meta_is_fetched_again(tmp_path, content):
    blob = MadeBlob(chunks())
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    path.write_bytes(content)
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    with_cache.close()


@pytest.mark.parametrize("bit", [0, 9, 17, 33, 42, 47])
def test_a_flipped_bit_in_a_kept_blob_meta_costs_a_request_and_no_error(tmp_path, caplog, bit):
    blob = MadeBlob([bytes([n]) * 6000 + os.urandom(99) for n in range(4)])
    backend = MadeBackend(blob)
    meta = bytearray(blob.ci.ljust(4096, b"\0") + blob.data[-4096:])
    stored = 24 * 2 + 8 + bit // 8  # word 1 of chunk 2: 40 bits of its stored offset, then its size
    meta[stored] ^= 1 << bit % 8
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    path.write_bytes(meta)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == blob.ci.ljust(4096, b"\0") + blob.data[-4096:]
    assert len([request for request in backend.requests if request[0] >= blob.data_size]) <= 2
    with_cache.close()


def test_a_blob_of_another_image_is_an_error_at_the_first_read(tmp_path, caplog):
    blob = MadeBlob(chunks())
    blob.data[-4096 + 12] ^= 1
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    with caplog.at_level(logging.WARNING, "nydusd"), pytest.raises(OSError, match="error"):
        read_spans(with_cache, blob.spans())
    assert "not the one of the bootstrap: " in caplog.text
    assert files(tmp_path) == ["blob.data", *MAP_FILES]
    with_cache.close()


def test_the_two_modes_do_not_share_a_directory(tmp_path):
    blob = MadeBlob(chunks())
    device(blob, MadeBackend(blob), tmp_path).close()
    with pytest.raises(CacheError, match="another work_dir"):
        device(blob, MadeBackend(blob), tmp_path, compressed=True)


def test_the_cache_directory_is_made_with_its_parents(tmp_path):
    blob = MadeBlob(chunks())
    with_cache = device(blob, MadeBackend(blob), tmp_path / "a" / "b")
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert len(files(tmp_path / "a" / "b")) == 2 + len(MAP_FILES)
    with_cache.close()
