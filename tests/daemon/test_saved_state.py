"""The state of a daemon as bytes: round trips, the reference's bytes, and bytes that are wrong."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.crc64 import crc64
from nydusd.daemon.saved_state import (
    KNOWN_FLAGS,
    MAGIC,
    REFERENCE,
    WIDE,
    SavedDirectory,
    SavedMount,
    SavedState,
    StateError,
    decode_state,
    encode_state,
)

STATES = Path(__file__).resolve().parent.parent / "golden" / "states"
NO_OPEN = 1 << 17
NO_OPENDIR = 1 << 24

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
numbers = st.integers(0, 2**64 - 1)


def mounts(slots):
    return st.builds(
        SavedMount,
        mountpoint=texts,
        kind=st.sampled_from([0, 1]),
        source=texts,
        config_text=texts,
        prefetch_files=st.none() | st.lists(texts, max_size=3).map(tuple),
        slot=slots,
    )


def states(last_slot):
    slots = st.integers(1, last_slot)
    return st.builds(
        SavedState,
        mounts=st.lists(mounts(slots), max_size=4, unique_by=lambda m: m.slot).map(tuple),
        offered=numbers.map(lambda flags: flags & KNOWN_FLAGS),
        accepted=numbers.map(lambda flags: flags & KNOWN_FLAGS),
        directories=st.lists(
            st.builds(SavedDirectory, numbers, numbers, texts.map(str.encode)), max_size=4
        ).map(tuple),
        next_directory=numbers,
        last_slot=st.integers(0, last_slot),
        connection=numbers,
    )


def sample(**changes) -> SavedState:
    state = SavedState(
        mounts=(SavedMount("/", 0, "img/v6/boot", "{}", None, 1),),
        offered=0x80_53FF_FFFB,
        accepted=0x3C7_F821,
        directories=(),
        next_directory=2,
        last_slot=1,
        connection=42,
    )
    return state._replace(**changes)


def version_of(data: bytes) -> int:
    return struct.unpack_from("<QH", data)[1]


def summed(body: bytes) -> bytes:
    return body + struct.pack("<Q", crc64(body))


@given(states(255))
def test_a_state_comes_back_as_it_was(state):
    data = encode_state(state)
    assert version_of(data) == REFERENCE.version
    assert decode_state(data) == state


@given(states(65535))
def test_a_state_of_many_slots_comes_back_as_it_was(state):
    assert decode_state(encode_state(state)) == state


def test_the_bytes_are_those_that_the_reference_was_seen_to_send():
    # spec of the run time, state encoding; its configuration is left out there
    def text(value: bytes) -> bytes:
        return struct.pack("<Q", len(value)) + value

    header = bytes.fromhex("0100648684191007 0100")
    tree = header + bytes.fromhex("0200000000000000 0000000000000000 d2d31b426a0364b2")
    table = header + bytes.fromhex("fbffff5380000000 21f8c70300000000")
    table += bytes(14) + bytes.fromhex("01010000") + text(tree) + b"\x02"
    table += bytes.fromhex("732a2930ebf74d1b")
    assert len(table) == 95
    body = header + struct.pack("<Q", 1) + text(b"/") + bytes(4) + text(b"img/v6/boot")
    body += text(b"{}") + text(b"/") + b"\x00\x01" + text(table) + struct.pack("<Q", 42)

    state = decode_state(summed(body))
    assert state == sample()
    assert encode_state(state) == summed(body)


@pytest.mark.skipif(MAGIC >> 16 != 0x0710_1984_8664, reason="bytes of an x86_64")
def test_flags_are_told_twice_as_the_reference_does():
    data = encode_state(sample(accepted=NO_OPEN))
    flags = data.index(struct.pack("<QQ", 0x80_53FF_FFFB, NO_OPEN)) + 16 + 14
    assert data[flags : flags + 4] == bytes([1, 0, 1, 0])  # no_open, -opendir, -writeback, killpriv


def test_flags_that_the_reference_has_no_name_for_are_left_out():
    state = sample(offered=2**64 - 1, accepted=2**64 - 1)
    assert decode_state(encode_state(state)).offered == KNOWN_FLAGS


@pytest.mark.parametrize(
    "change",
    [
        {"last_slot": 256},
        {"mounts": (SavedMount("/a", 0, "b", "{}", None, 300),)},
        {"mounts": (SavedMount("/a", 0, "b", "x" * 16385, None, 3),)},
        {"mounts": (SavedMount("/a\udcff", 0, "b", "{}", ("/\udc80",), 3),)},
        {"directories": (SavedDirectory(2, 1, b"\xff"),)},
    ],
    ids=["slot counter", "slot", "long configuration", "paths", "directory"],
)
def test_what_does_not_fit_the_reference_goes_in_the_wide_form(change):
    state = sample(**change)
    data = encode_state(state)
    assert version_of(data) == WIDE.version
    assert decode_state(data) == state


def test_the_longest_text_of_the_reference_still_goes_in_its_form():
    state = sample(mounts=(SavedMount("/a", 0, "b", "x" * 16384, None, 255),))
    assert version_of(encode_state(state)) == REFERENCE.version


def test_the_slot_counter_of_the_reference_may_have_wrapped():
    wrapped = replaced_next_slot(encode_state(sample()), 0)
    assert decode_state(wrapped).last_slot == 255
    assert encode_state(sample(last_slot=255)) == wrapped


def replaced_next_slot(data: bytes, slot: int) -> bytes:
    """*data* of one mount with another counter, and the checksums made anew."""
    table_at = data.index(struct.pack("<Q", 95)) + 8
    table = summed(data[table_at : table_at + 86] + bytes([slot]))
    return summed(data[:table_at] + table + data[table_at + 95 : -8])


def test_secrets_of_the_configuration_are_not_shown():
    mount = SavedMount("/a", 0, "b", '{"auth":"c2VjcmV0"}', None, 3)
    assert "c2VjcmV0" not in repr(mount)
    assert "c2VjcmV0" not in repr(sample(mounts=(mount,)))


@pytest.mark.skipif(MAGIC >> 16 != 0x0710_1984_8664, reason="states of an x86_64")
@pytest.mark.parametrize("name", ["dedicated", "shared"])
def test_a_state_of_the_reference_is_read_and_written_again_byte_for_byte(name):
    data = (STATES / f"{name}.bin").read_bytes()
    assert encode_state(decode_state(data)) == data


def test_what_the_reference_says_of_one_image():
    state = decode_state((STATES / "dedicated.bin").read_bytes())
    (mount,) = state.mounts
    assert mount[:3] == ("/", 0, "img/bootstrap")
    assert json.loads(mount.config_text)["device"]["id"] == "one"
    assert (state.last_slot, state.next_directory, state.connection) == (1, 2, 39)
    assert state.accepted & NO_OPEN


def test_what_the_reference_says_of_many_mounts():
    state = decode_state((STATES / "shared.bin").read_bytes())
    assert {mount.mountpoint: mount.slot for mount in state.mounts} == {"/b/c": 2, "/b/d": 3}
    assert sorted(state.directories) == [(2, 1, b"a"), (3, 1, b"b"), (4, 3, b"c"), (5, 3, b"d")]
    assert (state.last_slot, state.next_directory) == (3, 6)
    assert not state.accepted & NO_OPEN


# --- bytes that are wrong


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "InvalidSnapshotSize"),
        (b"\x00" * 7, "InvalidSnapshotSize"),
        (b"garbage!" * 4, r"Crc64\(\d+\)"),
        (summed(b""), "no snapshot"),
        (summed(struct.pack("<QH", 0x0710_1984_1234_0001, 1)), r"InvalidMagic\(\d+\)"),
        (summed(struct.pack("<QH", MAGIC | 7, 1)), r"InvalidFormatVersion\(7\)"),
        (summed(struct.pack("<QH", MAGIC | 1, 2)), r"InvalidDataVersion\(2\)"),
        (summed(struct.pack("<QH", MAGIC | 1, 1)), "mounts at byte 10 goes beyond the end"),
        (summed(struct.pack("<QHQ", MAGIC | 1, 1, 2**63)), "mounts in 0 bytes"),
    ],
)
def test_what_is_no_state_is_refused_in_the_references_words(data, reason):
    with pytest.raises(StateError, match=reason):
        decode_state(data)


@given(st.binary(max_size=200))
def test_any_bytes_with_right_checksums_are_a_state_or_an_error(body):
    data = summed(struct.pack("<QH", MAGIC | 1, 1) + body)
    with pytest.raises(StateError):
        decode_state(data)


@given(states(255), st.data())
def test_a_state_cut_short_is_an_error(state, data):
    body = encode_state(state)[:-8]
    cut = data.draw(st.integers(0, len(body) - 1))
    with pytest.raises(StateError):
        decode_state(summed(body[:cut]))


@given(st.data())
def test_a_damaged_number_is_an_error_or_another_state(data):
    body = bytearray(encode_state(sample())[:-8])
    body[data.draw(st.integers(0, len(body) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    try:
        decode_state(summed(bytes(body)))
    except StateError:
        return


@given(st.integers(0, 180), st.integers(1, 255))
def test_a_damaged_byte_without_a_new_checksum_is_always_noticed(at, change):
    data = bytearray(encode_state(sample()))
    data[at % len(data)] ^= change
    with pytest.raises(StateError):
        decode_state(bytes(data))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"mounts": (SavedMount("/", 2, "b", "{}", None, 1),)}, "file system type 2"),
        ({"mounts": (SavedMount("/", 0, "b", "{}", None, 0),)}, "slot 0"),
        ({"mounts": (SavedMount("/", 0, "b\0", "{}", None, 1),)}, "NUL"),
        ({"mounts": (SavedMount("/", 0, "b", "", None, 1),) * 2}, "two mounts have one slot"),
    ],
)
def test_a_state_that_makes_no_sense_is_refused(change, reason):
    with pytest.raises(StateError, match=reason):
        decode_state(encode_state(sample(**change)))


def test_bytes_too_many_are_refused():
    with pytest.raises(StateError, match="3 bytes too many"):
        decode_state(summed(encode_state(sample())[:-8] + b"abc"))
