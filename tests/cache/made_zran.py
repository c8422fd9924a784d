"""Blobs that are gzip layers, with the contexts that enter them, made from the format's facts.

The points of entry come from `tests.deflate`, which reads the stream in plain Python.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor
from tests.cache.made import MadeBlob, align
from tests.deflate import points

ZRAN = 2
GAP = 512  # bytes before each chunk that belong to none: a tar header
CONTEXT = struct.Struct("<QQQIIIBBH")


@dataclass
class ZranBlob(MadeBlob):
    """*chunks* in contexts of *contexts* chunks each; *members*: each context begins a member."""

    contexts: tuple[int, ...] = ()
    members: bool = False
    table: list[list[int]] = field(default_factory=list)  # fields of each context

    def __post_init__(self) -> None:
        self.with_crc = False
        self.compressor = Compressor.GZIP
        self.context_of = [n for n, count in enumerate(self.contexts) for _ in range(count)]
        assert len(self.context_of) == len(self.chunks)
        starts, chunk_starts = self._write_stream()
        self.data_size = len(self.data)
        self.starts = starts
        entries = {point.out_offset: point for point in points(bytes(self.data))}
        self.dictionaries = b""
        for number, start in enumerate(starts):
            entry = entries[start]
            end = starts[number + 1] if number + 1 < len(starts) else chunk_starts[-1]
            stored_end = entries[end].in_offset if end in entries else self.data_size
            self.table.append([
                entry.in_offset, start, len(self.dictionaries), stored_end - entry.in_offset,
                end - start, len(entry.dictionary), entry.lead_byte, entry.lead_bits, 0,
            ])  # fmt: skip
            self.dictionaries += entry.dictionary
        offset = 0
        self.entries = b""
        for index, chunk in enumerate(self.chunks):
            number = self.context_of[index]
            context = self.table[number]
            self.places.append((context[0], context[3], offset))
            self.entries += struct.pack(
                "<QQQ",
                offset >> 12 | (len(chunk) - 1) << 32 | (ZRAN | 1) << 56,
                context[0],
                number << 32 | chunk_starts[index] - starts[number],
            )
            offset = align(offset + len(chunk))
        self.plain_size = offset
        self.seal()

    def _write_stream(self) -> tuple[list[int], list[int]]:
        """Fill `data`; where contexts and chunks begin in the plain stream, and where it ends."""
        starts: list[int] = []
        chunk_starts: list[int] = []
        at = 0
        stream = None
        for index, chunk in enumerate(self.chunks):
            if index == 0 or self.context_of[index] != self.context_of[index - 1]:
                if stream is None or self.members:
                    self.data += stream.flush() if stream else b""
                    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
                else:
                    self.data += stream.flush(zlib.Z_BLOCK)
                starts.append(at)
            self.data += stream.compress(bytes(GAP) + chunk)
            chunk_starts.append(at + GAP)
            at += GAP + len(chunk)
        self.data += stream.flush()
        return starts, [*chunk_starts, at]

    def seal(self) -> None:
        """Write the tables, as they are now, behind the stream."""
        contexts = b"".join(CONTEXT.pack(*row) for row in self.table)
        self.ci = self.entries + contexts + self.dictionaries
        head = struct.pack(
            "<IIIIQQQQQI",
            0xB10BB10B, 0, 0, len(self.chunks), self.data_size, len(self.ci), len(self.ci),
            len(self.entries), len(self.ci) - len(self.entries), len(self.table),
        )  # fmt: skip
        del self.data[self.data_size :]
        self.data += self.ci + head.ljust(4092, b"\0") + struct.pack("<I", 0xB10BB10B)

    @property
    def info(self) -> BlobInfo:
        features = BlobFeature.ALIGNED | BlobFeature.CHUNK_INFO_V2 | BlobFeature.ZRAN
        return super().info._replace(features=features, uncompressed_size=self.plain_size)
