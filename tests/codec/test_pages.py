"""Pages of an encrypted cache file, against the cryptography package used directly."""

import os

import pytest

from nydusd.codec.pages import PageCipher
from tests.cache.made_units import xts

KEY = bytes(range(64, 96))


def test_a_page_cipher_is_xts_with_tweak_zero_for_each_page():
    cipher = PageCipher(KEY)
    plain = os.urandom(4096 * 3 + 100)
    padded = plain.ljust(4096 * 4, b"\0")
    pages = [padded[at : at + 4096] for at in range(0, len(padded), 4096)]
    sealed = cipher.seal(plain)
    assert sealed == b"".join(xts(page, KEY, bytes(16)) for page in pages)
    assert cipher.open(sealed) == padded
    assert cipher.seal(b"") == b""


@pytest.mark.parametrize("key", [b"", bytes(31), b"k" * 32])
def test_a_key_that_is_none_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="AES-128-XTS") as caught:
        PageCipher(key)
    assert "kk" not in str(caught.value)


def test_a_part_of_a_page_is_refused():
    with pytest.raises(ValueError, match="100 bytes"):
        PageCipher(KEY).open(bytearray(100))
