"""Stored units: batches and encrypted pieces, fetched and decoded as a whole."""

import dataclasses
import errno
import os
import struct

import pytest

from nydusd.base.errors import BlobCorrupt
from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, chunks, device
from tests.cache.made_units import UnitBlob, xts

COMPRESSORS = [Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD]
UNITS = (3, 1, 0, 40, 1, 1, 2)
SIZES = [10, 300, 4097, 5000, 1, *range(1, 400, 10), 20000, 15, 18, 700]


def units(**kind) -> UnitBlob:
    return UnitBlob(chunks(SIZES), units=UNITS, **kind)


def damaged(blob: UnitBlob, index: int, entry: tuple[int, int, int]) -> UnitBlob:
    """*blob* with another CI entry at *index*."""
    at = blob.data_size + 24 * index
    blob.data[at : at + 24] = struct.pack("<QQQ", *entry)
    return blob


def assert_eio(with_cache, spans) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(with_cache, spans)


@pytest.mark.parametrize("encrypted", [False, True])
@pytest.mark.parametrize("compressor", COMPRESSORS)
@pytest.mark.parametrize("kept", ["blob.data", "blob.raw", None])
def test_what_is_read_is_what_was_packed_cold_warm_and_reopened(
    tmp_path, encrypted, compressor, kept
):
    blob = units(compressor=compressor, encrypted=encrypted)
    backend = MadeBackend(blob)
    folder = tmp_path if kept else None
    for _ in range(2):
        with_cache = device(blob, backend, folder, 1 << 20, compressed=kept == "blob.raw")
        for _ in range(2):
            assert read_spans(with_cache, blob.spans()) == blob.content
        with_cache.close()
    if kept:
        assert sum(size for _, size in backend.data_requests(blob)) == blob.data_size
        content = (tmp_path / f"{blob.blob_id}.{kept}").read_bytes()
        stored = bytes(blob.data[: blob.data_size])
        assert content == (stored if kept == "blob.raw" else blob.plain.ljust(len(content), b"\0"))


@pytest.mark.parametrize("index", [0, 7, 25, 44])
def test_one_chunk_of_a_batch_brings_the_whole_batch_in_one_request(tmp_path, index):
    blob = units()
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, [blob.span(index, 1, 2)]) == blob.chunks[index][1:3]
    unit = blob.places[index][:2]
    assert backend.data_requests(blob) == [unit]
    mates = [i for i, place in enumerate(blob.places) if place[:2] == unit]
    assert read_spans(with_cache, [blob.span(i) for i in mates]) == b"".join(
        blob.chunks[i] for i in mates
    )
    assert backend.data_requests(blob) == [unit]
    with_cache.close()


def test_a_batch_longer_than_a_request_may_be_is_had_in_one(tmp_path):
    noise = [os.urandom(1000) for _ in range(300)]
    blob = UnitBlob(noise, units=(300,))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert backend.data_requests(blob) == [(0, blob.data_size)]
    with_cache.close()


def test_batches_side_by_side_come_in_one_request(tmp_path):
    blob = UnitBlob(chunks([100] * 60), units=(20, 20, 20))
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20)
    assert read_spans(with_cache, [blob.span(0)]) == blob.chunks[0]
    assert backend.data_requests(blob) == [(0, blob.data_size)]
    with_cache.close()


@pytest.mark.parametrize("content", [b"1", b"x" * 15, b"123456789012345x\x78\x90", b"y" * 18])
def test_short_encrypted_content_keeps_its_size(tmp_path, content):
    end_like_padding = b"123456789012345\x01\x78\x90"
    blob = UnitBlob(
        [content, end_like_padding, content], units=(1, 1, 0), encrypted=True,
        compressor=Compressor.NONE,
    )  # fmt: skip
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_an_encrypted_batch_under_16_stored_bytes_is_read(tmp_path):
    blob = UnitBlob([b"ab", b"cde"], units=(2,), encrypted=True)
    assert blob.unit_places == [(0, 18)]
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(with_cache, blob.spans()) == b"abcde"
    with_cache.close()


def test_a_wrong_key_is_eio(tmp_path, caplog):
    blob = units(encrypted=True)
    kept = device(blob, MadeBackend(blob), tmp_path)
    read_spans(kept, [blob.span(0)])  # the CI array is here, in the clear
    kept.close()
    at, size = blob.unit_places[1]
    blob.data[at : at + size] = xts(bytes(blob.data[at : at + size]), key=bytes(range(1, 33)))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert_eio(with_cache, [blob.span(3)])
    with_cache.close()
    assert "chunk 3" in caplog.text


def test_a_key_of_equal_halves_is_refused_when_opened(tmp_path):
    blob = units(encrypted=True)
    info = blob.info._replace(cipher_key=b"k" * 32)

    class Weak(UnitBlob):
        info = property(lambda self: info)

    weak = Weak(**{field.name: getattr(blob, field.name) for field in dataclasses.fields(blob)})
    with pytest.raises(BlobCorrupt, match="halves") as caught:
        device(weak, MadeBackend(weak), tmp_path)
    assert "kkk" not in str(caught.value)


def test_a_batch_that_does_not_decode_is_eio_for_its_chunks_alone(tmp_path, caplog):
    blob = units()
    at, size = blob.unit_places[3]
    blob.data[at : at + size] = bytes(size)
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    assert_eio(with_cache, [blob.span(10)])
    good = [i for i, place in enumerate(blob.places) if place[0] != at]
    for index in good:
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert_eio(with_cache, [blob.span(11)])
    with_cache.close()
    assert "unit of chunks" in caplog.text


def test_a_batch_that_inflates_to_more_than_it_says_is_eio(tmp_path, caplog):
    big = chunks([60000, 30000])
    blob = UnitBlob(big, units=(2,))
    at = blob.data_size + 48  # its context
    size = len(blob.content) - 1
    blob.data[at : at + 8] = struct.pack("<II", blob.unit_places[0][1], size)
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert_eio(with_cache, [blob.span(0)])
    with_cache.close()
    assert "unit of chunks" in caplog.text


@pytest.mark.parametrize(
    ("stored", "size"),
    [(0, 500), (501, 500), (100, 0), (100, (1 << 20) + 1), (100, 0xFFFFFFFF), (0xFFFFFFFF, 500)],
)
def test_hostile_batch_contexts_are_eio(tmp_path, caplog, stored, size):
    blob = UnitBlob(chunks([100, 400]), units=(2,))
    at = blob.data_size + 48
    blob.data[at : at + 8] = struct.pack("<II", stored, size)
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert_eio(with_cache, [blob.span(1)])
    with_cache.close()
    assert "chunk 1" in caplog.text


@pytest.mark.parametrize(
    "data", [1 << 32, 0xFFFFFFFF << 32, 401, 0xFFFFFFFF], ids=["next", "far", "behind", "wraps"]
)
def test_hostile_places_in_a_batch_are_eio(tmp_path, caplog, data):
    blob = UnitBlob(chunks([100, 400]), units=(2,))
    plain = 1 | 399 << 32 | (4 | 1) << 56
    damaged(blob, 1, (plain, 0, data))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert_eio(with_cache, [blob.span(1)])
    assert read_spans(with_cache, [blob.span(0)]) == blob.chunks[0]
    with_cache.close()
    assert "chunk 1" in caplog.text


def test_a_batch_entry_in_a_blob_without_batches_is_eio(tmp_path, caplog):
    blob = UnitBlob(chunks([100, 400]))
    damaged(blob, 1, (1 | 399 << 32 | (4 | 1) << 56, 0, 0))
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert_eio(with_cache, [blob.span(1)])
    with_cache.close()
    assert "chunk 1" in caplog.text
