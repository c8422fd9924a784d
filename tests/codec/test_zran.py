import contextlib
import gzip
import random
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nydusd.base.errors import BlobCorrupt
from nydusd.codec.zran import inflate
from tests.deflate import Point, points

WORDS = [f"word{number} ".encode() for number in range(50)]
TEXT = b"".join(random.Random(7).choices(WORDS, k=2000))
NOISE = random.Random(8).randbytes(3000)
BLOCK_FLUSHES = [zlib.Z_BLOCK, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_PARTIAL_FLUSH]


def member(*pieces: bytes, level: int = 9, flush: int = zlib.Z_BLOCK) -> bytes:
    """A gzip member with (at least) one deflate block for each of *pieces*."""
    stream = zlib.compressobj(level, zlib.DEFLATED, 31)
    stored = b""
    for piece in pieces:
        stored += stream.compress(piece) + stream.flush(flush)
    return stored + stream.flush()


def with_header(
    stored: bytes, *, extra: bytes = b"", name: bytes = b"", crc: bool = False
) -> bytes:
    """A member with optional fields in its header (RFC 1952)."""
    flags = (4 if extra else 0) | (8 if name else 0) | (2 if crc else 0)
    header = stored[:3] + bytes([flags]) + stored[4:10]
    if extra:
        header += len(extra).to_bytes(2, "little") + extra
    if name:
        header += name + b"\0"
    if crc:
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + stored[10:]


def bgzip(data: bytes, block: int = 1000) -> bytes:
    """As bgzip of htslib writes it: small members that tell their size, and an empty one."""
    pieces = [data[at : at + block] for at in range(0, len(data), block)]
    members = [with_header(member(piece), extra=b"BC\2\0\0\0") for piece in [*pieces, b""]]
    return b"".join(members)


def inflate_at(data: bytes, point: Point, size: int, end: int | None = None) -> bytes:
    return inflate(
        data[point.in_offset : end], size, point.dictionary, point.lead_byte, point.lead_bits
    )


FILES = {
    "one-block": gzip.compress(TEXT),
    "blocks": member(TEXT[:3000], TEXT[3000:4000], TEXT[4000:], TEXT[:500]),
    "stored": gzip.compress(NOISE, 0),
    "mixed": member(TEXT[:1000], NOISE, TEXT[500:]),
    "fixed": member(b"a", b"bc", b"def", level=1),
    "members": member(TEXT[:100])
    + member(TEXT[100:200], NOISE)
    + gzip.compress(b"")
    + member(TEXT),
    "bgzip": bgzip(TEXT),
    "headers": with_header(member(TEXT), name=b"layer.tar", crc=True)
    + with_header(member(NOISE), extra=b"ab\1\0x", name=b"n", crc=True),
    "gzip-in-a-stored-block": gzip.compress(
        b"1234" + gzip.compress(TEXT) + gzip.compress(NOISE), 0
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_block_can_be_entered(name):
    data = FILES[name]
    plain = gzip.decompress(data)
    for point in points(data):
        rest = plain[point.out_offset :]
        for size in {0, 1, len(rest) // 2, len(rest)} & set(range(len(rest) + 1)):
            assert inflate_at(data, point, size) == rest[:size], point


@pytest.mark.parametrize("name", FILES)
def test_the_end_of_a_member_can_be_entered(name):
    # As the builder has it for a chunk that begins a member: the entry is on the last member's
    # trailer, with that member's end as dictionary and what was left of its last byte.
    data = FILES[name]
    plain = gzip.decompress(data)
    before = [point for point in points(data) if point.starts_member][1:]
    for point in before:
        at = data.rindex(b"\x1f\x8b\x08", 0, point.in_offset)
        rest = plain[point.out_offset :]
        if not rest:
            continue
        for bits in (0, 1, 7):
            trailer = data[at - 8 :]
            size = int.from_bytes(trailer[4:8], "little")
            history = plain[max(0, point.out_offset - size) : point.out_offset][-(1 << 15) :]
            assert inflate(trailer, len(rest), history, data[at - 9], bits) == rest
            assert inflate(trailer, len(rest), b"", data[at - 9], bits) == rest


def test_only_what_is_asked_for_comes_out_of_a_thousandfold_stream():
    stored = gzip.compress(bytes(50 << 20))
    assert len(stored) < 60_000
    assert inflate(stored[10:], 4096) == bytes(4096)


def test_an_entry_needs_no_byte_behind_its_last_symbol():
    data = member(TEXT[:1000], TEXT[1000:])
    first, second = (point for point in points(data) if point.out_offset in (0, 1000))
    assert inflate_at(data, first, 1000, second.in_offset) == TEXT[:1000]


@pytest.mark.parametrize("cut", [100, 1000])
def test_a_stream_that_ends_early_is_corrupt(cut):
    data = FILES["one-block"]
    with pytest.raises(BlobCorrupt, match=f"bytes of a gzip stream do not inflate to {len(TEXT)}"):
        inflate(data[10:-cut], len(TEXT))


def test_more_than_the_stream_has_is_corrupt():
    with pytest.raises(BlobCorrupt):
        inflate(gzip.compress(TEXT)[10:], len(TEXT) + 1)


def test_a_following_member_with_a_wrong_crc_is_corrupt():
    data = bytearray(member(TEXT) + member(NOISE) + member(TEXT))
    entry = len(member(TEXT)) + len(member(NOISE)) - 8
    data[entry] ^= 1
    with pytest.raises(BlobCorrupt):
        inflate(bytes(data[10:]), len(TEXT) * 2 + len(NOISE))


def test_rubbish_between_members_is_corrupt():
    with pytest.raises(BlobCorrupt):
        inflate(member(TEXT)[10:] + b"rubbish, more than a header" + member(TEXT), len(TEXT) + 1)


def test_a_dictionary_longer_than_the_window_is_no_dictionary():
    with pytest.raises(ValueError, match="at most 32768 bytes"):
        inflate(b"", 0, bytes((1 << 15) + 1))


@pytest.mark.parametrize("bits", [8, 255])
def test_more_than_seven_bits_of_a_byte_are_corrupt(bits):
    with pytest.raises(BlobCorrupt):
        inflate(FILES["blocks"][10:], 10, b"", 0, bits)


def test_a_match_before_the_history_is_corrupt():
    data = FILES["blocks"]
    entry = [point for point in points(data) if point.out_offset == 3000][-1]
    with pytest.raises(BlobCorrupt):
        inflate(data[entry.in_offset :], 1000, b"", entry.lead_byte, entry.lead_bits)


pieces = st.lists(
    st.one_of(
        st.binary(max_size=200),
        st.integers(0, 8000).flatmap(
            lambda start: st.integers(1, 3000).map(lambda size: TEXT[start : start + size])
        ),
    ),
    max_size=5,
)
members = st.builds(
    lambda parts, level, flush: member(*parts, level=level, flush=flush),
    pieces,
    st.integers(0, 9),
    st.sampled_from(BLOCK_FLUSHES),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(members, min_size=1, max_size=4).map(b"".join), st.data())
def test_any_stream_can_be_entered_at_any_block(data, draw):
    plain = gzip.decompress(data)
    point = draw.draw(st.sampled_from(points(data)))
    size = draw.draw(st.integers(0, len(plain) - point.out_offset))
    assert inflate_at(data, point, size) == plain[point.out_offset :][:size]


@settings(max_examples=400, deadline=None)
@given(
    st.sampled_from(sorted(FILES)),
    st.integers(0, 200),
    st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 255)), max_size=4),
    st.integers(0, 30_000),
    st.binary(max_size=300),
    st.integers(0, 255),
    st.integers(0, 9),
)
def test_a_changed_stream_gives_an_error_or_bytes(name, start, changes, size, history, byte, bits):
    data = bytearray(FILES[name][start:])
    for at, value in changes:
        if at < len(data):
            data[at] = value
    with contextlib.suppress(BlobCorrupt):
        assert len(inflate(bytes(data), size, history, byte, bits)) == size
