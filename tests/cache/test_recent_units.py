import pytest

from nydusd.cache.recent_units import find_unit, forget_units, remember_unit

MIB = 1 << 20


@pytest.fixture
def blob():
    blob = object()
    yield blob
    forget_units(blob)


def test_a_unit_is_found_by_its_blob_and_number(blob):
    other = object()
    remember_unit(blob, 3, bytearray(b"plain"))

    assert find_unit(blob, 3) == b"plain"
    assert find_unit(blob, 4) is None
    assert find_unit(other, 3) is None


def test_what_was_used_last_stays_within_8_mib(blob):
    for number in range(4):
        remember_unit(blob, number, bytearray(2 * MIB))
    assert find_unit(blob, 0) is not None
    remember_unit(blob, 4, bytearray(1))

    assert find_unit(blob, 1) is None
    assert [find_unit(blob, number) is not None for number in (0, 2, 3, 4)] == [True] * 4


def test_a_unit_larger_than_all_room_is_kept_alone_until_the_next_one(blob):
    remember_unit(blob, 0, bytearray(1))
    remember_unit(blob, 1, bytearray(9 * MIB))

    assert find_unit(blob, 1) is not None
    assert find_unit(blob, 0) is None
    remember_unit(blob, 2, bytearray(1))
    assert find_unit(blob, 1) is None
    assert find_unit(blob, 2) is not None


def test_the_units_of_a_closed_blob_are_gone_and_make_room(blob):
    other = object()
    remember_unit(blob, 0, bytearray(8 * MIB))
    forget_units(blob)
    for number in range(8):
        remember_unit(other, number, bytearray(MIB))

    assert find_unit(blob, 0) is None
    assert all(find_unit(other, number) is not None for number in range(8))
    forget_units(other)


def test_a_unit_that_is_there_is_not_kept_twice(blob):
    for _ in range(9):
        remember_unit(blob, 0, bytearray(MIB))
    remember_unit(blob, 1, bytearray(7 * MIB))

    assert find_unit(blob, 0) is not None
    assert find_unit(blob, 1) is not None
