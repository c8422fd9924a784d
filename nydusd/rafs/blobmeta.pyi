from typing import Final, NamedTuple, Self, final

from typing_extensions import Buffer

from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobInfo
from nydusd.rafs.zran_table import ZranTable

HEADER_SIZE: Final = 4096

class Place(NamedTuple):
    compressed_offset: int
    uncompressed_offset: int
    compressed_size: int
    uncompressed_size: int
    flags: int
    crc32: int

def plain_file_size(blob: BlobInfo) -> int: ...
def plain_size_max(header: Buffer, blob: BlobInfo) -> int: ...
def header_difference(header: Buffer, blob: BlobInfo) -> str | None: ...
def header_matches(header: Buffer, blob: BlobInfo) -> bool: ...

@final
class BlobMeta:
    count: int
    compressed_end: int
    uncompressed_end: int
    chunk_size: int
    contexts_offset: int
    contexts_size: int
    contexts_count: int
    zran: ZranTable | None
    def __new__(cls, file: Mapping, blob: BlobInfo, header: Buffer | None = None) -> Self: ...
    def place(self, index: int) -> Place: ...
