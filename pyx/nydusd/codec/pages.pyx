"""Encrypted cache files: AES-128-XTS in pages of 4096 bytes, each with the tweak zero.

As the reference has it (docs/formats/cache-files.md). With one tweak for every page the masks of a
page are the same for all: a page is masked, encrypted in ECB mode, masked again, and many pages go
through the `cryptography` package in one call. It is imported when the first cipher is made. Any
thread; the key is never shown.
"""

from cpython.bytearray cimport PyByteArray_AS_STRING, PyByteArray_FromStringAndSize
from libc.stdint cimport uint8_t, uint64_t
from libc.string cimport memcpy, memset

cimport cython

cdef enum:
    PAGE_BYTES = 4096
    PAGE_WORDS = 512
    KEY_BYTES = 32
    BLOCK_BYTES = 16
    FIELD_POLYNOMIAL = 0x87     # of GF(2^128) (IEEE 1619)


cdef void mask_pages(uint64_t *words, uint64_t pages, const uint64_t *mask) noexcept nogil:
    cdef uint64_t _page
    cdef uint64_t i
    for _page in range(pages):
        for i in range(PAGE_WORDS):
            words[i] ^= mask[i]
        words += PAGE_WORDS


@cython.final
cdef class PageCipher:
    """Encrypts and decrypts whole pages with *key* (32 bytes).

    `ValueError` for a key of another length or of two equal halves.
    """

    cdef object ecb             # of the first half of the key
    cdef uint64_t mask[PAGE_WORDS]

    def __cinit__(self, bytes key):
        if len(key) != KEY_BYTES:
            raise ValueError(f"AES-128-XTS takes a key of {KEY_BYTES} bytes")
        if key[:BLOCK_BYTES] == key[BLOCK_BYTES:]:
            raise ValueError("the two halves of an AES-128-XTS key must differ")
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self.ecb = Cipher(algorithms.AES(key[:BLOCK_BYTES]), modes.ECB())
        tweaks = Cipher(algorithms.AES(key[BLOCK_BYTES:]), modes.ECB()).encryptor()
        tweak = int.from_bytes(tweaks.update(bytes(BLOCK_BYTES)), "little")
        masks = bytearray()
        for _ in range(PAGE_BYTES // BLOCK_BYTES):
            masks += tweak.to_bytes(BLOCK_BYTES, "little")
            carry = tweak >> 127
            tweak = (tweak << 1 & (1 << 128) - 1) ^ (FIELD_POLYNOMIAL if carry else 0)
        memcpy(self.mask, PyByteArray_AS_STRING(masks), PAGE_BYTES)

    def seal(self, const uint8_t[::1] plain):
        """*plain* as it lies in the file: encrypted, the last page filled up with zeros."""
        cdef uint64_t size = plain.shape[0]
        cdef uint64_t pages = (size + PAGE_BYTES - 1) // PAGE_BYTES
        cdef bytearray masked = PyByteArray_FromStringAndSize(NULL, pages * PAGE_BYTES)
        cdef char *target = PyByteArray_AS_STRING(masked)
        if size > 0:
            memcpy(target, &plain[0], size)
        memset(target + size, 0, pages * PAGE_BYTES - size)
        return self.pass_through(masked, self.ecb.encryptor())

    def open(self, bytearray stored):
        """The pages that `seal` made *stored* of, zeros at the end included; *stored* is used up.

        `ValueError` for a part of a page.
        """
        if len(stored) % PAGE_BYTES:
            raise ValueError(f"{len(stored)} bytes are no whole pages")
        return self.pass_through(stored, self.ecb.decryptor())

    cdef bytearray pass_through(self, bytearray pages, context):
        cdef uint64_t count = len(pages) // PAGE_BYTES
        cdef uint64_t *words = <uint64_t *>PyByteArray_AS_STRING(pages)
        cdef bytearray out = PyByteArray_FromStringAndSize(NULL, len(pages) + BLOCK_BYTES - 1)
        with nogil:
            mask_pages(words, count, self.mask)
        context.update_into(pages, out)
        del out[len(pages):]
        words = <uint64_t *>PyByteArray_AS_STRING(out)
        with nogil:
            mask_pages(words, count, self.mask)
        return out
