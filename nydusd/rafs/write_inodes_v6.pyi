from typing import Self, final

from nydusd.rafs.write_chunks import ChunkTable

@final
class ImageBytes:
    def __new__(
        cls, size: int, shift: int, chunks: ChunkTable, chunk_size: int, root_number: int
    ) -> Self: ...
