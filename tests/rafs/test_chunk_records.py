import gzip

import pytest

from nydusd.base.errors import BootstrapError
from nydusd.base.mapping import Mapping
from nydusd.rafs.chunk_records import (
    chunk_table,
    digest_and_size,
    place_of,
    places_of_blob,
    record_in_blob,
    record_of_span,
)
from nydusd.rafs.read_v5 import BootstrapV5
from nydusd.rafs.read_v6 import BootstrapV6
from tests.build.golden_trees import BUILDS
from tests.build.ondisk import ChunkFields


def golden(name: str) -> Mapping:
    return Mapping.of_bytes(gzip.decompress((BUILDS / f"{name}.boot.gz").read_bytes()))


def test_the_chunk_table_of_v6_says_what_the_spans_of_v5_say():
    v5, v6 = BootstrapV5(golden("tiny-v5")), BootstrapV6(golden("tiny-v6"))

    (record,) = chunk_table(v6)
    (span,) = v5.chunk_spans(v5.find(b"/hello"))

    assert record_of_span(span) == record
    assert place_of(record) == (0, 0)
    digest, size = digest_and_size(record)
    assert (digest[:4].hex(), size) == (ChunkFields(record).digest[:4].hex(), 36)


def test_the_places_of_a_blob_are_told_in_chunk_order():
    image = BootstrapV6(golden("tiny-v6"))
    (record,) = chunk_table(image)
    fields = ChunkFields(record)
    told = fields.compressed_offset.to_bytes(8, "little") + fields.compressed_size.to_bytes(
        8, "little"
    )

    assert places_of_blob(image, 0, 1) == told
    assert places_of_blob(image, 0, 0xFFFFFFFF) == told  # of one record that there is
    assert places_of_blob(image, 1, 1) == bytes(16)
    assert places_of_blob(BootstrapV5(golden("tiny-v5")), 0, 1) == b""


def test_a_record_can_move_to_another_blob():
    (record,) = chunk_table(BootstrapV6(golden("tiny-v6")))

    moved = ChunkFields(record_in_blob(record, 7))

    assert moved.blob_index == 7
    assert moved.digest == ChunkFields(record).digest


def test_v5_has_no_chunk_table():
    with pytest.raises(BootstrapError, match="no chunk table"):
        chunk_table(BootstrapV5(golden("tiny-v5")))


def test_what_is_no_record_is_refused():
    for function in (place_of, digest_and_size, lambda data: record_in_blob(data, 1)):
        with pytest.raises(ValueError, match="record of 3 bytes"):
            function(b"abc")
