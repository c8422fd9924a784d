"""Blobs made chunk by chunk, with the table rows and spans that an image would have for them.

Packed with `struct` from the format's description, independent of the compiled readers; served by
a backend that counts what it is asked for and can be told to fail.
"""

from __future__ import annotations

import hashlib
import struct
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import lz4.block
import zstandard

from nydusd.backend.interface import BlobBackend, BlobReader
from nydusd.base.errors import BackendError
from nydusd.cache.device import Device
from nydusd.cache.pool import CachePolicy, open_blob
from nydusd.codec.digest import crc32c_of
from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor, Digester
from nydusd.rafs.records import Span

COMPRESSED, HAS_CRC = 1, 0x10
HOLE, PLACED = 1, 2
SIZES = (1, 4095, 4096, 4097, 70000, 100, 1 << 20, 3)
MAP_FILES = ["blob.data.chunk_map", "chunk_map", "durable_map"]


def chunks(sizes: Iterable[int] = SIZES) -> list[bytes]:
    """Chunks that shrink a little and differ from each other."""
    return [(f"{i:5}".encode() * (size // 5 + 1))[:size] for i, size in enumerate(sizes)]


def files(folder: Path) -> list[str]:
    """The files below *folder*, without the blob's id."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return sorted(path.name.partition(".")[2] for path in found)


def pack(compressor: Compressor, plain: bytes) -> bytes:
    """*plain* as stored: not smaller means not compressed."""
    stored = plain
    if compressor == Compressor.ZSTD:
        stored = zstandard.ZstdCompressor(level=3).compress(plain)
    elif compressor == Compressor.LZ4_BLOCK:
        stored = lz4.block.compress(plain, store_size=False)
    return stored if len(stored) < len(plain) else plain


def align(offset: int, alignment: int = 4096) -> int:
    return -(-offset // alignment) * alignment


@dataclass
class MadeBlob:
    """One blob of *chunks*; what a v5 or v6 image says of it."""

    chunks: list[bytes]
    version: int = 6
    compressor: Compressor = Compressor.ZSTD
    with_crc: bool = True
    has_chunk_map: bool = True
    blob_id: str = "b" * 64
    alignment: int = 4096  # of chunks in the plain blob; another one in v5 alone
    data: bytearray = field(default_factory=bytearray)
    places: list[tuple[int, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        offset = 0
        for plain in self.chunks:
            stored = pack(self.compressor, plain)
            self.places.append((len(self.data), len(stored), offset))
            self.data += stored
            offset = align(offset + len(plain), self.alignment)
        self.data_size = len(self.data)
        self.ci = b"".join(self._entry(index) for index in range(len(self.chunks)))
        if self.version == 6:
            self.data += self.ci + self._header()

    @property
    def plain(self) -> bytes:
        out = bytearray()
        for chunk, (_, _, offset) in zip(self.chunks, self.places, strict=True):
            out = out.ljust(offset, b"\0") + chunk
        return bytes(out)

    def _entry(self, index: int) -> bytes:
        stored_offset, stored_size, offset = self.places[index]
        plain = self.chunks[index]
        flags = COMPRESSED if stored_size != len(plain) else 0
        crc = crc32c_of(plain) if self.with_crc else 0
        return struct.pack(
            "<QQQ",
            offset >> 12 | (len(plain) - 1) << 32 | (flags | (HAS_CRC if crc else 0)) << 56,
            stored_offset | stored_size << 40,
            crc,
        )

    def _header(self) -> bytes:
        size = len(self.ci)
        head = struct.pack(
            "<IIIIQQQ", 0xB10BB10B, 5, 0, len(self.chunks), self.data_size, size, size
        )
        return head.ljust(4092, b"\0") + struct.pack("<I", 0xB10BB10B)

    @property
    def info(self) -> BlobInfo:
        v6 = self.version == 6
        return BlobInfo(
            blob_index=0,
            blob_id=self.blob_id,
            meta_blob_id=self.blob_id,
            chunk_size=1 << 20,
            chunk_count=len(self.chunks) if self.has_chunk_map else 0,
            compressor=self.compressor,
            digester=Digester.SHA256,
            features=(BlobFeature.ALIGNED if self.alignment == 4096 else BlobFeature(0))
            | (BlobFeature.CHUNK_INFO_V2 if v6 else BlobFeature(0)),
            compressed_size=self.data_size,
            data_size=self.data_size,
            uncompressed_size=len(self.plain),
            has_chunk_map=self.has_chunk_map,
            ci_offset=self.data_size if v6 else 0,
            ci_compressed_size=len(self.ci) if v6 else 0,
            ci_uncompressed_size=len(self.ci) if v6 else 0,
            version=self.version,
        )

    def span(self, index: int, offset: int = 0, length: int | None = None) -> Span:
        """A span of chunk *index* as a bootstrap of this version tells it."""
        stored_offset, stored_size, plain_offset = self.places[index]
        plain = self.chunks[index]
        length = len(plain) - offset if length is None else length
        if self.version == 6:
            return Span(0, 0, index, offset, length, 0, plain_offset, 0, 0, 0, 0, None)
        crc = crc32c_of(plain) if self.with_crc else 0
        flags = (COMPRESSED if stored_size != len(plain) else 0) | (HAS_CRC if crc else 0)
        digest = hashlib.sha256(plain).digest()
        return Span(
            PLACED, 0, index, offset, length, len(plain), plain_offset,
            stored_offset, stored_size, flags, crc, digest,
        )  # fmt: skip

    def spans(self) -> list[Span]:
        return [self.span(index) for index in range(len(self.chunks))]

    @property
    def content(self) -> bytes:
        """What `spans` read gives."""
        return b"".join(self.chunks)


def hole(length: int) -> Span:
    return Span(HOLE, 0, 0, 0, length, 0, 0, 0, 0, 0, 0, None)


class MadeReader(BlobReader):
    """A blob in memory; `requests` of it are counted, `gate` holds them back."""

    def __init__(self, backend: MadeBackend, data: bytearray) -> None:
        self.backend = backend
        self.data = data

    def size(self) -> int:
        return len(self.data)

    def read_into(self, buffer, offset: int, *, background: bool = False) -> None:
        size = len(buffer)
        with self.backend.lock:
            self.backend.requests.append((offset, size))
            self.backend.background += background
        self.backend.started.set()
        assert self.backend.gate.wait(60)
        if any(offset < end and start < offset + size for start, end in self.backend.broken):
            raise BackendError(f"no bytes at {offset}")
        if offset + size > len(self.data):
            raise BackendError("the blob ends before")
        buffer[:] = self.data[offset : offset + size]

    def close(self) -> None:
        self.backend.closed += 1


class MadeBackend(BlobBackend):
    """Serves *blobs*; `broken` are stretches that fail."""

    def __init__(self, *blobs: MadeBlob) -> None:
        self.blobs = {blob.blob_id: blob for blob in blobs}
        self.requests: list[tuple[int, int]] = []
        self.background = 0  # of the requests, those that nobody waits for
        self.broken: list[tuple[int, int]] = []
        self.closed = 0
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    def reader(self, blob_id: str) -> MadeReader:
        return MadeReader(self, self.blobs[blob_id].data)

    def data_requests(self, blob: MadeBlob) -> list[tuple[int, int]]:
        """Requests for chunk data, without those for the CI array."""
        return [request for request in self.requests if request[0] < blob.data_size]


def policy(folder, *, compressed=False, validate=False, use_chunk_map=True) -> CachePolicy:
    return CachePolicy(folder, compressed, validate, use_chunk_map)


def device(blob: MadeBlob, backend: MadeBackend, folder, batch_size: int = 0, **kept) -> Device:
    """A device for *blob* alone, kept in *folder*; it owns its blob."""
    cached = open_blob(blob.info, backend, policy(folder, **kept))
    return Device([cached], batch_size, cached.close)
