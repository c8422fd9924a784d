"""Blobs with batches, encrypted or not, made from the format's description as `made` does it.

Encryption goes through the cryptography package directly, padding is written out here: nothing of
nydusd.codec.cipher.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from nydusd.rafs.blobs import BlobFeature, BlobInfo
from nydusd.rafs.blobs import Cipher as CipherKind
from tests.cache.made import HAS_CRC, MadeBlob, align, crc32c_of, pack

BATCH, ENCRYPTED = 4, 8
KEY, IV = bytes(range(32)), bytes(range(100, 116))


def xts(plain: bytes, key: bytes = KEY, iv: bytes = IV) -> bytes:
    """*plain* as an encrypted blob stores it."""
    if len(plain) < 16:
        missing = 16 - len(plain)
        plain += bytes([missing] * missing) + b"\x78\x90"
    return Cipher(algorithms.AES(key), modes.XTS(iv)).encryptor().update(plain)


@dataclass
class UnitBlob(MadeBlob):
    """*chunks* in stored units of *units* chunks each: 1 an ordinary chunk, 0 a batch of one."""

    units: tuple[int, ...] = ()
    encrypted: bool = False

    def __post_init__(self) -> None:
        self.entries: list[bytes] = []
        self.contexts: list[bytes] = []
        self.unit_places: list[tuple[int, int]] = []
        left = list(self.chunks)
        self.plain_offset = 0
        for count in self.units or (1,) * len(self.chunks):
            self._add_unit([left.pop(0) for _ in range(count or 1)], batch=count != 1)
        assert not left
        self.data_size = len(self.data)
        plain_ci = b"".join(self.entries) + b"".join(self.contexts)
        self.ci = xts(plain_ci) if self.encrypted else plain_ci
        self.data += self.ci + self._units_header(len(plain_ci))

    def _add_unit(self, chunks: list[bytes], *, batch: bool) -> None:
        content = b"".join(chunks)
        stored = pack(self.compressor, content)
        compressed = len(stored) != len(content)
        if self.encrypted:
            stored = xts(stored)
        start = len(self.data)
        self.unit_places.append((start, len(stored)))
        self.data += stored
        offset = 0
        for plain in chunks:
            crc = crc32c_of(plain) if self.with_crc and not batch else 0
            flags = ENCRYPTED * self.encrypted | (HAS_CRC if crc else 0)
            flags |= BATCH | 1 if batch else compressed
            self.entries.append(
                struct.pack(
                    "<QQQ",
                    self.plain_offset >> 12 | (len(plain) - 1) << 32 | flags << 56,
                    start | (0 if batch else len(stored)) << 40,
                    len(self.contexts) << 32 | offset if batch else crc,
                )
            )
            self.places.append((start, len(stored), self.plain_offset))
            self.plain_offset = align(self.plain_offset + len(plain))
            offset += len(plain)
        if batch:
            self.contexts.append(struct.pack("<II", len(stored), len(content)).ljust(40, b"\0"))

    def _units_header(self, plain_size: int) -> bytes:
        head = struct.pack(
            "<IIIIQQQQQI",
            0xB10BB10B, 0, 0, len(self.chunks), self.data_size, len(self.ci), plain_size,
            24 * len(self.chunks), 40 * len(self.contexts), len(self.contexts),
        )  # fmt: skip
        header = head.ljust(4092, b"\0") + struct.pack("<I", 0xB10BB10B)
        return xts(header) if self.encrypted else header

    @property
    def info(self) -> BlobInfo:
        features = BlobFeature.ALIGNED | BlobFeature.CHUNK_INFO_V2 | BlobFeature.CAP_TAR_TOC
        if self.contexts:
            features |= BlobFeature.BATCH
        info = super().info._replace(
            features=features,
            uncompressed_size=self.plain_offset,
            ci_uncompressed_size=24 * len(self.chunks) + 40 * len(self.contexts),
        )
        if not self.encrypted:
            return info
        return info._replace(
            features=features | BlobFeature.ENCRYPTED,
            cipher=CipherKind.AES_128_XTS,
            cipher_key=KEY,
            cipher_iv=IV,
        )
