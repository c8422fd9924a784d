"""What was checked a moment ago is not checked again, unless somebody else touched the file."""

import os

import pytest

from nydusd.cache.span_reader import read_spans
from tests.cache.made import MadeBackend, MadeBlob, device


def made() -> MadeBlob:
    return MadeBlob([bytes([n]) * 5000 for n in range(6)], 5)


def validated(blob: MadeBlob, folder, batch_size=1 << 20):
    return device(blob, MadeBackend(blob), folder, batch_size, validate=True)


def hits_of(device, spans) -> int:
    """How many of *spans* the file answered by itself."""
    before = device.snapshot()["hits"]
    for span in spans:
        read_spans(device, [span])
    return device.snapshot()["hits"] - before


def test_what_was_just_fetched_and_checked_is_answered_from_the_file(tmp_path):
    blob = made()
    with_cache = validated(blob, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert hits_of(with_cache, blob.spans()) == 6
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_readers_in_four_places_of_an_image_do_not_push_out_what_each_has_just_checked(tmp_path):
    blob = MadeBlob([bytes([n % 251]) * 64 for n in range(3 * 2048 + 1)], 5)
    with_cache = validated(blob, tmp_path, batch_size=0)
    spans = [blob.span(index) for index in range(0, 3 * 2048 + 1, 2048)]
    assert hits_of(with_cache, spans) == 0
    assert hits_of(with_cache, spans) == 4
    with_cache.close()


def test_after_somebody_else_has_touched_the_file_all_of_it_is_checked(tmp_path):
    blob = made()
    with_cache = validated(blob, tmp_path)
    read_spans(with_cache, blob.spans())
    os.utime(tmp_path / f"{blob.blob_id}.blob.data")
    assert hits_of(with_cache, blob.spans()) == 0
    assert read_spans(with_cache, blob.spans()) == blob.content
    with_cache.close()


def test_a_file_that_was_there_before_is_checked(tmp_path):
    blob = made()
    for expected in (6, 0):
        with_cache = validated(blob, tmp_path)
        read_spans(with_cache, blob.spans())
        assert hits_of(with_cache, blob.spans()) == expected
        with_cache.close()


def test_another_image_that_means_another_chunk_is_not_vouched_for(tmp_path, caplog):
    blob = made()
    with_cache = validated(blob, tmp_path)
    assert read_spans(with_cache, blob.spans()) == blob.content
    assert hits_of(with_cache, [blob.span(1)]) == 1
    elsewhere = blob.span(1)._replace(uncompressed_offset=blob.span(2).uncompressed_offset)
    promised = blob.span(1)._replace(digest=blob.span(2).digest)
    before = with_cache.snapshot()["hits"]
    assert read_spans(with_cache, [elsewhere]) == blob.chunks[1]  # had anew, not what lies there
    with pytest.raises(OSError, match="error"):
        read_spans(with_cache, [promised])
    assert with_cache.snapshot()["hits"] == before
    with_cache.close()


def test_what_another_image_writes_over_a_fresh_chunk_is_not_taken_for_it(tmp_path):
    blob = made()
    alone = device(blob, MadeBackend(blob), tmp_path, validate=True)
    elsewhere = blob.span(5)._replace(uncompressed_offset=blob.span(1).uncompressed_offset)
    for _ in range(2):
        assert read_spans(alone, [blob.span(1)]) == blob.chunks[1]
        assert read_spans(alone, [elsewhere]) == blob.chunks[5]
    alone.close()


def test_damage_between_two_reads_of_a_fresh_chunk_is_found(tmp_path):
    blob = made()
    backend = MadeBackend(blob)
    with_cache = device(blob, backend, tmp_path, 1 << 20, validate=True)
    path = tmp_path / f"{blob.blob_id}.blob.data"
    for number in range(6):
        assert read_spans(with_cache, [blob.span(number)]) == blob.chunks[number]
        with path.open("r+b") as file:
            file.seek(blob.places[number][2] + 77)
            file.write(b"\xff")
        requests = len(backend.requests)
        assert read_spans(with_cache, [blob.span(number)]) == blob.chunks[number]
        assert len(backend.requests) == requests + 1
    with_cache.close()
