"""The checksum of a saved state, against a bitwise one and sums of the reference."""

from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.crc64 import crc64

POLYNOMIAL = 0xAD93D23594C935A9


def bitwise(data: bytes) -> int:
    """The definition, most significant bit first over reversed bits."""
    value = 0
    for byte in data:
        value ^= int(f"{byte:08b}"[::-1], 2) << 56
        for _ in range(8):
            value = (value << 1 ^ (POLYNOMIAL if value >> 63 else 0)) & 0xFFFF_FFFF_FFFF_FFFF
    return int(f"{value:064b}"[::-1], 2)


@given(st.binary(max_size=100))
def test_it_is_jones_polynomial_reflected(data):
    assert crc64(data) == bitwise(data)


def test_its_check_value_is_the_published_one():
    # Redis: src/crc64.c, the same polynomial, start and order
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


def test_every_length_and_offset_gives_the_same_sum():
    data = bytes(range(64))
    for start in range(9):
        for end in range(start, 40):
            assert crc64(memoryview(data)[start:end]) == bitwise(data[start:end])
