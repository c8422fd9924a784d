import os
import time
from types import SimpleNamespace

import pytest

from nydusd.base.errors import BackendError, ConfigError, UnsupportedError
from nydusd.cache.pool import BlobPool, cache_policy, open_device
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Backend, Cache, FileCache, LocalFs
from nydusd.rafs.blobs import BlobFeature, Compressor
from tests.cache.made import MadeBackend, MadeBlob

BACKEND = Backend("localfs", localfs=LocalFs(dir="/made"))


def image(*blobs):
    infos = [blob.info._replace(blob_index=index) for index, blob in enumerate(blobs)]
    return SimpleNamespace(blobs=infos)


def file_cache(folder, **more):
    return Cache("blobcache", filecache=FileCache(work_dir=str(folder)), **more)


@pytest.fixture
def blob():
    return MadeBlob([b"a" * 5000, b"b" * 5000])


@pytest.fixture
def backend(blob):
    return MadeBackend(blob, MadeBlob([b"c" * 100], blob_id="c" * 64))


def test_mounts_of_one_blob_share_it_and_the_last_one_closes_it(tmp_path, blob, backend):
    pool = BlobPool(lambda _: backend)
    first = pool.open_device(image(blob), BACKEND, file_cache(tmp_path))
    second = pool.open_device(image(blob), BACKEND, file_cache(tmp_path))
    assert first.blobs[0] is second.blobs[0]
    assert read_spans(first, blob.spans()) == blob.content
    requests = len(backend.requests)
    first.close()
    first.close()
    assert backend.closed == 0
    assert read_spans(second, blob.spans()) == blob.content
    assert len(backend.requests) == requests
    assert len(pool.blobs()) == 1
    second.close()
    assert backend.closed == 1
    assert pool.blobs() == []


def test_another_directory_is_another_blob_and_another_backend_too(tmp_path, blob, backend):
    pool = BlobPool(lambda _: backend)
    elsewhere = BACKEND._replace(localfs=LocalFs(dir="/other"))
    devices = [
        pool.open_device(image(blob), BACKEND, file_cache(tmp_path / "1")),
        pool.open_device(image(blob), BACKEND, file_cache(tmp_path / "2")),
        pool.open_device(image(blob), elsewhere, file_cache(tmp_path / "1")),
    ]
    assert len({id(device.blobs[0]) for device in devices}) == 3
    for device in devices:
        assert read_spans(device, blob.spans()) == blob.content
        device.close()


@pytest.mark.parametrize(("kind", "ahead"), [("localfs", 0), ("localdisk", 0), ("registry", 1)])
def test_only_what_is_far_away_is_read_ahead(tmp_path, kind, ahead):
    blob = MadeBlob([bytes([index]) * 70000 for index in range(12)], compressor=Compressor.NONE)
    backend = MadeBackend(blob)
    pool = BlobPool(lambda _: backend)
    device = pool.open_device(image(blob), Backend(kind), file_cache(tmp_path), 128 << 10)
    for span in blob.spans()[:5]:
        read_spans(device, [span])
    deadline = time.monotonic() + 60
    while ahead and not backend.background and time.monotonic() < deadline:
        os.sched_yield()
    device.close()
    assert backend.background == ahead


def test_a_failed_open_gives_back_what_it_had(tmp_path, blob, backend):
    pool = BlobPool(lambda _: backend)
    (tmp_path / f"{'c' * 64}.blob.data").write_bytes(bytes(9999))
    other = MadeBlob([b"c" * 100], blob_id="c" * 64)
    with pytest.raises(Exception, match="9999 bytes"):
        pool.open_device(image(blob, other), BACKEND, file_cache(tmp_path))
    assert pool.blobs() == []
    assert backend.closed == 2


def test_a_blob_without_chunks_need_not_exist(tmp_path, backend):
    empty = MadeBlob([b"x"]).info._replace(blob_id="d" * 64, chunk_count=0)
    device = BlobPool(lambda _: backend).open_device(
        SimpleNamespace(blobs=[empty]), BACKEND, file_cache(tmp_path)
    )
    assert device.blobs == (None,)
    device.close()


def test_a_missing_blob_fails_the_open(tmp_path, blob):
    missing = Backend("localfs", localfs=LocalFs(dir=str(tmp_path)))
    with pytest.raises(BackendError, match=str(tmp_path)):
        open_device(image(blob), missing, file_cache(tmp_path))


def test_features_of_later_versions_are_refused(tmp_path, blob, backend):
    info = blob.info._replace(features=blob.info.features | BlobFeature.EXTERNAL)
    with pytest.raises(UnsupportedError, match="external"):
        BlobPool(lambda _: backend).open_device(
            SimpleNamespace(blobs=[info]), BACKEND, file_cache(tmp_path)
        )


def file_cache_with(**settings):
    return Cache("blobcache", filecache=FileCache(**settings))


@pytest.mark.parametrize(
    ("cache", "error"),
    [
        (Cache("memcache"), ConfigError),
        (Cache("blobcache"), ConfigError),
        (Cache("fscache"), UnsupportedError),
        (Cache("blobcache", filecache=FileCache(enable_encryption=True)), ConfigError),
        (file_cache_with(encryption_key="ab" * 32, enable_encryption=True), ConfigError),
        (file_cache_with(encryption_key="no hex", enable_encryption=True), ConfigError),
        (file_cache_with(enable_convergent_encryption=True), UnsupportedError),
    ],
)
def test_caches_that_cannot_be_are_said(cache, error):
    with pytest.raises(error):
        cache_policy(cache)


@pytest.mark.parametrize("kind", ["", "dummycache"])
def test_no_cache_keeps_nothing(kind, blob, backend):
    device = BlobPool(lambda _: backend).open_device(image(blob), BACKEND, Cache(kind))
    assert read_spans(device, blob.spans()) == blob.content
    assert device.blobs[0].file is None
    device.close()
