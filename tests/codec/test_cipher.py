"""AES-128-XTS of blobs, against the cryptography package used directly."""

import os

import pytest

from nydusd.codec.cipher import BlobCipher, padded, unpadded
from tests.cache.made_units import IV, KEY, xts


@pytest.mark.parametrize("size", [1, 15, 16, 17, 18, 31, 4096, 100_001])
def test_what_is_encrypted_is_decrypted(size):
    plain = os.urandom(size)
    cipher = BlobCipher(KEY, IV)
    stored = cipher.encrypt(plain)
    assert stored == xts(plain)
    assert cipher.decrypt(memoryview(stored)) == padded(plain)


@pytest.mark.parametrize("size", range(16))
def test_padding_is_told_from_content(size):
    plain = os.urandom(size)
    assert len(padded(plain)) == 18
    assert unpadded(padded(plain)) == plain


@pytest.mark.parametrize(
    "content", [b"x" * 17, b"x" * 18, b"x" * 15 + b"\x02\x78\x90", b"\0" * 16 + b"\x78\x90"]
)
def test_content_that_no_padding_makes_is_not_cut(content):
    assert unpadded(content) is None


@pytest.mark.parametrize(("key", "iv"), [(b"k" * 31, IV), (KEY, IV[1:]), (b"k" * 32, IV)])
def test_keys_that_cannot_be_are_refused_and_not_shown(key, iv):
    with pytest.raises(ValueError, match="AES-128-XTS") as caught:
        BlobCipher(key, iv)
    assert "kk" not in str(caught.value)


def test_fewer_bytes_than_a_unit_cannot_be_decrypted():
    with pytest.raises(ValueError, match="16"):
        BlobCipher(KEY, IV).decrypt(bytes(15))


def test_a_cipher_does_not_show_its_key():
    assert repr(KEY)[2:-1] not in repr(BlobCipher(KEY, IV))
