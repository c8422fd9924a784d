"""Kinds of blobs and of keeping them: tar files, gzip members, encrypted files, digests of v6."""

import errno
import gzip
import hashlib
import logging
import os

import pytest

from nydusd.base.errors import BackendError, CacheError, UnsupportedError
from nydusd.cache.device import Device
from nydusd.cache.pool import CachePolicy, open_blob
from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import BlobFeature, Compressor, Digester
from nydusd.rafs.records import Span
from tests.cache.made import COMPRESSED, MadeBackend, MadeBlob, chunks
from tests.cache.made_units import UnitBlob, xts

KEY = bytes(range(64, 96))
DIRECT = 4
SIZES = (5000, 1, 4096, 70000, 300, 18)


def opened(info, backend, folder, digests=b"", **kept) -> Device:
    policy = CachePolicy(
        folder, False, kept.pop("validate", False), True, page_key=kept.pop("key", b"")
    )
    cached = open_blob(info, backend, policy, digests)
    return Device([cached], 0, cached.close)


# --- tar files


class Tar(MadeBlob):
    """A blob that is its own plain data, in blocks of 512 bytes."""

    def __init__(self) -> None:
        super().__init__([os.urandom(20 * 512)])
        self.data = bytearray(self.chunks[0])

    @property
    def info(self):
        size = len(self.data)
        return super().info._replace(
            features=BlobFeature.TARFS | BlobFeature.CAP_TAR_TOC,
            compressor=Compressor.NONE,
            digester=Digester.SHA256,
            compressed_size=size,
            data_size=size,
            uncompressed_size=size,
            ci_offset=0,
            ci_compressed_size=0,
            ci_uncompressed_size=0,
        )

    def part(self, block: int, offset: int, length: int) -> Span:
        return Span(DIRECT, 0, block, offset, length, 0, block * 512, 0, 0, 0, 0, None)


def test_a_tar_in_the_cache_directory_is_read_where_it_lies(tmp_path):
    tar = Tar()
    backend = MadeBackend(tar)
    (tmp_path / tar.blob_id).write_bytes(tar.data)
    with_file = opened(tar.info, backend, tmp_path)
    spans = [tar.part(3, 100, 1000), tar.part(9, 0, 512)]
    assert read_spans(with_file, spans) == bytes(tar.data[1636:2636] + tar.data[4608:5120])
    assert not backend.requests
    assert [path.name for path in tmp_path.iterdir()] == [tar.blob_id]
    with_file.close()


def test_a_tar_in_the_cache_directory_needs_no_backend(tmp_path):
    tar = Tar()
    (tmp_path / tar.blob_id).write_bytes(tar.data)

    class Empty(MadeBackend):
        def reader(self, blob_id):
            raise BackendError(f"no blob {blob_id}")

    with_file = opened(tar.info, Empty(), tmp_path)
    assert read_spans(with_file, [tar.part(1, 0, 600)]) == bytes(tar.data[512:1112])
    with_file.close()
    with pytest.raises(BackendError, match="no blob"):
        opened(tar.info, Empty(), tmp_path / "elsewhere")


@pytest.mark.parametrize("kept", [True, False])
def test_a_tar_of_the_backend_alone_is_read_from_there_and_not_copied(tmp_path, kept):
    tar = Tar()
    backend = MadeBackend(tar)
    without = opened(tar.info, backend, tmp_path if kept else None)
    for _ in range(2):
        assert read_spans(without, [tar.part(3, 10, 1000)]) == bytes(tar.data[1546:2546])
    assert backend.requests == [(1536, 1010)] * 2
    assert not list(tmp_path.iterdir())
    without.close()


def test_a_tar_of_another_length_is_refused(tmp_path):
    tar = Tar()
    (tmp_path / tar.blob_id).write_bytes(tar.data + b"!")
    with pytest.raises(CacheError, match="another"):
        opened(tar.info, MadeBackend(tar), tmp_path)


def test_a_tar_cut_under_a_reader_is_read_from_the_backend(tmp_path):
    tar = Tar()
    path = tmp_path / tar.blob_id
    path.write_bytes(tar.data)
    with_file = opened(tar.info, MadeBackend(tar), tmp_path)
    assert read_spans(with_file, [tar.part(0, 0, 512)]) == bytes(tar.data[:512])
    os.truncate(path, 100)
    assert read_spans(with_file, [tar.part(8, 0, 5000)]) == bytes(tar.data[4096:9096])
    with_file.close()


def test_a_stretch_behind_the_tar_and_one_of_no_tar_are_eio(tmp_path, caplog):
    tar, ordinary = Tar(), MadeBlob(chunks(SIZES))
    without = opened(tar.info, MadeBackend(tar), tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(without, [tar.part(30, 0, 5000)])
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(without, [ordinary.span(0)])
    without.close()
    kept = opened(ordinary.info, MadeBackend(ordinary), tmp_path)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(kept, [tar.part(0, 0, 10)])
    kept.close()
    assert "do not agree" in caplog.text


# --- gzip members


def members(version: int, *, told: int = 0) -> MadeBlob:
    """A blob of gzip members; each record says *told* stored bytes, 0 as in the oldest images."""
    plain = chunks(SIZES)
    blob = MadeBlob(plain, version, Compressor.NONE, with_crc=False)
    stored = [gzip.compress(chunk, mtime=0) for chunk in plain]
    blob.data = bytearray(b"".join(stored))
    blob.data_size = len(blob.data)
    at = 0
    for index, piece in enumerate(stored):
        blob.places[index] = (at, told and len(piece) + told, blob.places[index][2])
        at += len(piece)
    blob.compressor = Compressor.GZIP
    return blob


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("told", [0, 60])
def test_gzip_members_of_unknown_stored_size_are_read(tmp_path, told, compressed):
    blob = members(5, told=told)
    spans = [span._replace(chunk_flags=COMPRESSED) for span in blob.spans()]
    backend = MadeBackend(blob)
    for _ in range(2):
        policy = CachePolicy(tmp_path, compressed, True, True)
        cached = open_blob(blob.info, backend, policy)
        with_cache = Device([cached], 1 << 20, cached.close)
        for span, plain in zip(spans, blob.chunks, strict=True):
            assert read_spans(with_cache, [span]) == plain
        assert read_spans(with_cache, spans) == blob.content
        with_cache.close()


def test_a_gzip_member_that_gives_too_little_is_eio(tmp_path, caplog):
    blob = members(5)
    spans = [span._replace(chunk_flags=COMPRESSED) for span in blob.spans()]
    with_cache = opened(blob.info, MadeBackend(blob), tmp_path)
    wrong = spans[1]._replace(uncompressed_size=2, length=2)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(with_cache, [wrong])
    with_cache.close()
    assert "do not decode" in caplog.text


# --- encrypted cache files


def test_an_encrypted_cache_keeps_nothing_in_the_clear_and_gives_it_back(tmp_path):
    blob = UnitBlob(chunks(SIZES), units=(1, 2, 1, 2))
    backend = MadeBackend(blob)
    for _ in range(2):
        with_cache = opened(blob.info, backend, tmp_path, key=KEY)
        for _ in range(2):
            assert read_spans(with_cache, blob.spans()) == blob.content
        with_cache.close()
    assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
    content = (tmp_path / f"{blob.blob_id}.blob.data").read_bytes()
    plain = blob.plain.ljust(blob.plain_offset, b"\0")
    pages = [plain[at : at + 4096] for at in range(0, len(plain), 4096)]
    assert content == b"".join(xts(page, KEY, bytes(16)) for page in pages)


def test_an_encrypted_cache_is_not_taken_for_one_in_the_clear(tmp_path):
    blob = UnitBlob(chunks(SIZES))
    opened(blob.info, MadeBackend(blob), tmp_path, key=KEY).close()
    with pytest.raises(CacheError, match="encrypted"):
        opened(blob.info, MadeBackend(blob), tmp_path)


def test_what_another_key_encrypted_is_fetched_again_by_its_digests(tmp_path):
    blob = UnitBlob(chunks(SIZES))
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in blob.chunks)
    first = opened(blob.info, MadeBackend(blob), tmp_path, digests, key=KEY)
    read_spans(first, blob.spans())
    first.close()
    second = opened(blob.info, MadeBackend(blob), tmp_path, digests, key=KEY[::-1])
    assert read_spans(second, blob.spans()) == blob.content
    second.close()


def test_an_encrypted_cache_of_v5_is_refused(tmp_path):
    blob = MadeBlob(chunks(SIZES), 5)
    with pytest.raises(UnsupportedError, match="v5"):
        opened(blob.info, MadeBackend(blob), tmp_path, key=KEY)


# --- digests of v6, and a table of chunks that is damaged while it is used


def test_digests_of_the_bootstrap_check_chunks_of_v6(tmp_path, caplog):
    blob = MadeBlob(chunks(SIZES), 6, Compressor.NONE, with_crc=False)
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in blob.chunks)
    blob.data[blob.places[3][0] + 9] ^= 1
    with_cache = opened(blob.info, MadeBackend(blob), tmp_path, digests, validate=True)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(with_cache, [blob.span(3)])
    assert read_spans(with_cache, [blob.span(2)]) == blob.chunks[2]
    with_cache.close()
    assert "digest" in caplog.text


def test_a_chunk_whose_digest_the_table_leaves_out_is_served(tmp_path):
    blob = MadeBlob(chunks(SIZES))
    digests = bytes(32 * len(blob.chunks))
    with_cache = opened(blob.info, MadeBackend(blob), tmp_path, digests, validate=True)
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_blob_that_cannot_be_validated_is_a_warning(tmp_path, caplog):
    blob = MadeBlob(chunks(SIZES))
    with caplog.at_level(logging.WARNING, "nydusd"):
        opened(blob.info, MadeBackend(blob), tmp_path, validate=True).close()
    assert "cannot be validated" in caplog.text


def test_a_table_of_chunks_cut_under_a_reader_is_fetched_again(tmp_path, caplog):
    blob = MadeBlob(chunks([4096] * 600))
    backend = MadeBackend(blob)
    with_cache = opened(blob.info, backend, tmp_path)
    read_spans(with_cache, [blob.span(0)])
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    good = path.read_bytes()
    with caplog.at_level(logging.WARNING, "nydusd"):
        os.truncate(path, 0)
        assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == good
    with_cache.close()
    assert "was cut" in caplog.text


def test_a_table_of_chunks_overwritten_under_a_reader_is_fetched_again_once(tmp_path):
    blob = MadeBlob(chunks([4096] * 600))
    backend = MadeBackend(blob)
    with_cache = opened(blob.info, backend, tmp_path)
    read_spans(with_cache, [blob.span(0)])
    path = tmp_path / f"{blob.blob_id}.blob.meta"
    good = path.read_bytes()
    with path.open("r+b") as file:
        file.write(bytes(24 * 300))
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert path.read_bytes() == good
    with_cache.close()


def test_a_table_that_is_broken_in_the_blob_itself_is_fetched_anew_once(tmp_path, caplog):
    blob = MadeBlob(chunks(SIZES))
    blob.data[blob.data_size : blob.data_size + 24] = bytes(24)
    backend = MadeBackend(blob)
    with_cache = opened(blob.info, backend, tmp_path)
    requests = set()
    for _ in range(3):
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            read_spans(with_cache, [blob.span(0)])
        requests.add(len(backend.requests))
    assert len(requests) == 1
    with_cache.close()
    assert "do not agree" in caplog.text


def test_the_policy_does_not_show_its_key():
    shown = repr(CachePolicy(None, False, False, True, page_key=KEY))
    assert "key" not in shown
    assert repr(KEY)[2:-1] not in shown


@pytest.mark.parametrize("kept", [{}, {"validate": True}, {"compressed": True}])
def test_a_large_chunk_is_had_and_checked_once_for_all_parts_of_it(tmp_path, kept):
    plain = os.urandom(1 << 20)
    blob = MadeBlob([plain])
    backend = MadeBackend(blob)
    digests = hashlib.sha256(plain).digest()
    policy = CachePolicy(
        tmp_path if kept else None, kept.get("compressed", False), "validate" in kept, True
    )
    cached = open_blob(blob.info, backend, policy, digests)
    with_parts = Device([cached], 0, cached.close)
    part = 1 << 17
    first = read_spans(with_parts, [blob.span(0, 0, part)])
    if kept:  # what is kept is not looked at again, or had again when it was changed
        name = "blob.raw" if "compressed" in kept else "blob.data"
        with (tmp_path / f"{blob.blob_id}.{name}").open("r+b") as file:
            file.write(bytes(1 << 20))
    rest = [read_spans(with_parts, [blob.span(0, part * i, part)]) for i in range(1, 8)]
    assert first + b"".join(rest) == plain
    assert len(backend.data_requests(blob)) == (2 if "validate" in kept else 1)
    with_parts.close()


@pytest.mark.parametrize("validate", [False, True])
def test_a_chunk_at_hand_is_not_given_to_an_image_that_means_another_one(tmp_path, validate):
    blob = MadeBlob([os.urandom(1 << 18), os.urandom(1 << 18)], version=5)
    policy = CachePolicy(tmp_path if validate else None, False, validate, True)
    cached = open_blob(blob.info, MadeBackend(blob), policy)
    honest = Device([cached], 0, cached.close)
    lying = Device([cached], 0)
    lie = blob.span(1)._replace(chunk_index=0)
    assert read_spans(lying, [lie]) == blob.chunks[1]
    assert read_spans(honest, [blob.span(0)]) == blob.chunks[0]
    assert read_spans(lying, [lie]) == blob.chunks[1]
    honest.close()
