"""Chunk records decoded with `struct`, apart from the program's own structs."""

import struct
from dataclasses import InitVar, dataclass, field

CHUNK = struct.Struct("<32sIIIIQQQII")


@dataclass
class ChunkFields:
    """The fields of one 80-byte chunk record."""

    record: InitVar[bytes]
    digest: bytes = field(init=False)
    blob_index: int = field(init=False)
    flags: int = field(init=False)
    compressed_size: int = field(init=False)
    uncompressed_size: int = field(init=False)
    compressed_offset: int = field(init=False)
    uncompressed_offset: int = field(init=False)
    file_offset: int = field(init=False)
    index: int = field(init=False)
    crc32: int = field(init=False)

    def __post_init__(self, record: bytes) -> None:
        (
            self.digest,
            self.blob_index,
            self.flags,
            self.compressed_size,
            self.uncompressed_size,
            self.compressed_offset,
            self.uncompressed_offset,
            self.file_offset,
            self.index,
            self.crc32,
        ) = CHUNK.unpack(record)

    @property
    def is_compressed(self) -> bool:
        return bool(self.flags & 1)
