"""Gzip layers: contexts fetched and inflated as a whole, and what hostile ones do."""

import copy
import errno
import functools
import os
import random
import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.span_reader import read_spans
from nydusd.config.model import Prefetch
from tests.cache.made import MadeBackend, device
from tests.cache.made_zran import ZranBlob

WORDS = [f"word{number} ".encode() for number in range(40)]
SIZES = (100, 3000, 1, 5000, 4096, 20, 700, 9000, 300)
CONTEXTS = (3, 1, 4, 1)
IN_OFFSET, OUT_OFFSET, DICT_OFFSET, IN_LEN, OUT_LEN, DICT_SIZE, BYTE, BITS = range(8)


@functools.cache
def made_layer(*, members: bool) -> ZranBlob:
    rng = random.Random(3)
    chunks = [b"".join(rng.choices(WORDS, k=size))[:size] for size in SIZES]
    return ZranBlob(chunks, contexts=CONTEXTS, members=members)


def layer(*, members: bool = False) -> ZranBlob:
    """A layer that may be changed."""
    return copy.deepcopy(made_layer(members=members))


def assert_eio(with_cache, spans) -> None:
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        read_spans(with_cache, spans)


def test_the_made_layer_is_entered_within_bytes_and_with_history():
    table = layer().table
    assert any(row[BITS] for row in table)
    assert any(row[DICT_SIZE] for row in table)


@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("kept", ["blob.data", "blob.raw", None])
@pytest.mark.parametrize("batch_size", [0, 1 << 20])
def test_what_is_read_is_what_was_packed_cold_warm_and_reopened(
    tmp_path, members, kept, batch_size
):
    blob = layer(members=members)
    backend = MadeBackend(blob)
    folder = tmp_path if kept else None
    for _ in range(2):
        with_cache = device(blob, backend, folder, batch_size, compressed=kept == "blob.raw")
        for _ in range(2):
            assert read_spans(with_cache, blob.spans()) == blob.content
            for index, chunk in enumerate(blob.chunks):
                assert read_spans(with_cache, [blob.span(index)]) == chunk
        with_cache.close()


@pytest.mark.parametrize("kept", ["blob.data", "blob.raw", None])
def test_one_chunk_brings_its_whole_context_in_one_request(tmp_path, kept):
    blob = layer()
    backend = MadeBackend(blob)
    folder = tmp_path if kept else None
    with_cache = device(blob, backend, folder, compressed=kept == "blob.raw")
    assert read_spans(with_cache, [blob.span(5, 3, 10)]) == blob.chunks[5][3:13]
    row = blob.table[2]
    assert backend.data_requests(blob) == [(row[IN_OFFSET], row[IN_LEN])]
    for index in (4, 6, 7):
        assert read_spans(with_cache, [blob.span(index)]) == blob.chunks[index]
    assert len(backend.data_requests(blob)) == 1
    with_cache.close()


def test_contexts_come_along_while_their_plain_bytes_fit_into_two_batches(tmp_path):
    blob = layer()
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 8192)
    assert read_spans(with_cache, [blob.span(0)]) == blob.chunks[0]
    first, second = blob.table[:2]
    assert (
        first[OUT_LEN] + second[OUT_LEN] <= 2 * 8192 < sum(row[OUT_LEN] for row in blob.table[:3])
    )
    end = second[IN_OFFSET] + second[IN_LEN]
    assert backend.data_requests(blob) == [(first[IN_OFFSET], end - first[IN_OFFSET])]
    assert read_spans(with_cache, [blob.span(3)]) == blob.chunks[3]
    assert len(backend.data_requests(blob)) == 1
    with_cache.close()


@pytest.mark.parametrize("batch_size", [4096, 8192, 1 << 20])
def test_prefetch_has_every_context_once(tmp_path, batch_size):
    blob = layer()
    backend = MadeBackend(blob)
    filled = device(blob, backend, tmp_path)
    prefetcher = Prefetcher(
        filled, Prefetch(enable=True, threads=2, batch_size=batch_size), everything=True
    )
    prefetcher.start()
    assert prefetcher.wait(60)
    prefetcher.close()
    assert filled.blobs[0].complete
    asked = sum(size for _, size in backend.data_requests(blob))
    assert asked <= sum(row[IN_LEN] for row in blob.table)
    requests = len(backend.requests)
    assert read_spans(filled, blob.spans()) == blob.content
    assert len(backend.requests) == requests
    filled.close()


def test_readers_of_one_context_share_one_request(tmp_path):
    blob = layer()
    backend = MadeBackend(blob)
    backend.gate.clear()
    with_cache = device(blob, backend, tmp_path)
    found = {}

    def read(index: int) -> None:
        found[index] = read_spans(with_cache, [blob.span(index)])

    readers = [threading.Thread(target=read, args=(index,)) for index in (4, 5, 6, 7)]
    for reader in readers:
        reader.start()
    assert backend.started.wait(60)
    backend.gate.set()
    for reader in readers:
        reader.join(60)
    assert found == {index: blob.chunks[index] for index in (4, 5, 6, 7)}
    assert len(backend.data_requests(blob)) == 1
    with_cache.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (IN_OFFSET, 1 << 40),
        (IN_OFFSET, 0),
        (IN_LEN, 0),
        (IN_LEN, 20),
        (IN_LEN, 0xFFFFFFFF),
        (OUT_LEN, 10),
        (OUT_LEN, 0xFFFFFFFF),
        (OUT_LEN, 1 << 24),
        (DICT_OFFSET, 1 << 63),
        (DICT_SIZE, 0xFFFFFFFF),
        (DICT_SIZE, 0),
    ],
)
def test_a_broken_context_is_an_io_error_of_its_own_chunks_alone(tmp_path, caplog, field, value):
    blob = layer()
    blob.table[2][field] = value
    blob.seal()
    with_cache = device(blob, MadeBackend(blob), tmp_path, 1 << 20)
    for index, chunk in enumerate(blob.chunks):
        if blob.context_of[index] == 2:
            assert_eio(with_cache, [blob.span(index)])
        else:
            assert read_spans(with_cache, [blob.span(index)]) == chunk
    with_cache.close()


def test_a_damaged_stretch_of_the_layer_is_an_io_error_and_kept_nowhere(tmp_path, caplog):
    blob = layer()
    row = blob.table[2]
    good = bytes(blob.data)
    middle = slice(row[IN_OFFSET] + 20, row[IN_OFFSET] + 60)
    blob.data[middle] = b"\xff" * 40
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path)
    assert_eio(with_cache, [blob.span(5)])
    assert "the unit of chunks that it is part of does not decode" in caplog.text
    blob.data[:] = good
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_layer_that_ends_early_is_an_io_error_of_what_is_not_there(tmp_path, caplog):
    blob = layer()
    backend = MadeBackend(blob)
    backend.broken = [(blob.table[3][IN_OFFSET] + 5, blob.data_size)]
    with_cache = device(blob, backend, tmp_path)
    assert_eio(with_cache, [blob.span(8)])
    assert read_spans(with_cache, blob.spans()[:4]) == b"".join(blob.chunks[:4])
    with_cache.close()


def test_contexts_that_are_each_other_give_what_they_name(tmp_path):
    blob = layer()
    blob.table[1] = blob.table[2]
    blob.seal()
    with_cache = device(blob, MadeBackend(blob), tmp_path)
    assert read_spans(with_cache, blob.spans()[4:8]) == b"".join(blob.chunks[4:8])
    with_cache.close()


edits = st.lists(
    st.tuples(
        st.integers(0, len(CONTEXTS) - 1),
        st.integers(0, BITS),
        st.one_of(st.integers(0, 255), st.integers(0, (1 << 32) - 1)),
    ),
    min_size=1,
    max_size=3,
)


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(edits)
def test_any_table_gives_bytes_or_an_io_error(caplog, edits):
    blob = layer()
    for row, name, value in edits:
        blob.table[row][name] = value & 0xFF if name >= BYTE else value
    blob.seal()
    touched = {row for row, _, _ in edits}
    with_cache = device(blob, MadeBackend(blob), None)
    for index, chunk in enumerate(blob.chunks):
        try:
            found = read_spans(with_cache, [blob.span(index)])
        except OSError as exc:
            assert exc.errno == errno.EIO  # noqa: PT017 - both ways are right for what was touched
            assert blob.context_of[index] in touched
        else:
            assert len(found) == len(chunk)
            assert found == chunk or blob.context_of[index] in touched
    with_cache.close()
