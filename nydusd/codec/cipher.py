"""AES-128-XTS as blobs and encrypted cache files use it: one key and tweak for every piece.

Bytes to bytes; docs/formats/blobs.md says what is encrypted and how short pieces are padded. The
`cryptography` package is imported when the first cipher is made, which only an encrypted image or
cache does. Any thread; a call holds the GIL (3 GB/s, so 0.3 ms for a chunk of 1 MiB). Keys are
never shown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers import Cipher

KEY_BYTES = 32
IV_BYTES = 16
UNIT_BYTES = 16  # shorter pieces are padded
PADDED_BYTES = 18  # ... to so many
PADDING_END = b"\x78\x90"


class BlobCipher:
    """Encrypts and decrypts whole pieces with *key* (32 bytes) and *iv* (16 bytes).

    `ValueError` for a key or tweak of another length and for a key of two equal halves.
    """

    __slots__ = ("_cipher",)

    def __init__(self, key: bytes, iv: bytes) -> None:
        if len(key) != KEY_BYTES or len(iv) != IV_BYTES:
            raise ValueError(f"AES-128-XTS takes {KEY_BYTES} bytes of key and {IV_BYTES} of tweak")
        if key[:16] == key[16:]:
            raise ValueError("the two halves of an AES-128-XTS key must differ")
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._cipher: Cipher[modes.XTS] = Cipher(algorithms.AES(key), modes.XTS(iv))

    def decrypt(self, stored: bytes | memoryview[int]) -> bytes:
        """What *stored* (16 bytes or more) was made of, padding included; `ValueError`."""
        return self._cipher.decryptor().update(stored)

    def encrypt(self, plain: bytes | memoryview[int]) -> bytes:
        """*plain* as it is stored, padded first when it is shorter than 16 bytes."""
        return self._cipher.encryptor().update(padded(bytes(plain)))


def padded(plain: bytes) -> bytes:
    """*plain*, or 18 bytes for a shorter one than a cipher can take."""
    missing = UNIT_BYTES - len(plain)
    if missing <= 0:
        return plain
    return plain + bytes([missing]) * missing + PADDING_END


def unpadded(opened: bytes) -> bytes | None:
    """What `padded` may have made *opened* of; None when it cannot have.

    18 bytes that look padded may be 18 bytes of content all the same: who knows the size that is
    due decides by it.
    """
    if len(opened) != PADDED_BYTES or not opened.endswith(PADDING_END):
        return None
    missing = opened[UNIT_BYTES - 1]
    size = UNIT_BYTES - missing
    if not 0 < missing <= UNIT_BYTES or opened[size:UNIT_BYTES] != bytes([missing]) * missing:
        return None
    return opened[:size]
