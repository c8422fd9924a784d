import hashlib

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import UnsupportedError
from nydusd.codec.digest import crc32c_of, digest_of, hasher


def test_crc32c_of_the_published_vectors():
    # RFC 3720, B.4
    assert crc32c_of(bytes(32)) == 0x8A9136AA
    assert crc32c_of(b"\xff" * 32) == 0x62A8AB43
    assert crc32c_of(bytes(range(32))) == 0x46DD794E
    assert crc32c_of(b"") == 0


@given(st.binary(max_size=2000))
def test_crc32c_is_the_same_with_and_without_the_instruction(data):
    assert crc32c_of(data) == crc32c_of(data, by_table=True)


@given(st.binary(max_size=2000))
def test_digests_are_those_of_the_libraries(data):
    assert digest_of(0, data) == blake3.blake3(data).digest()
    assert digest_of(1, data) == hashlib.sha256(data).digest()


@pytest.mark.parametrize("digester", [0, 1])
def test_a_digest_may_be_fed_in_pieces(digester):
    state = hasher(digester)
    state.update(b"ab")
    state.update(b"c")
    assert state.digest() == digest_of(digester, b"abc")


def test_an_unknown_digester_is_refused():
    with pytest.raises(UnsupportedError):
        digest_of(7, b"")
    with pytest.raises(UnsupportedError):
        hasher(7)
