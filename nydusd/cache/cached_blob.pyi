import logging
from collections.abc import Callable
from typing import Self, final

from nydusd.backend.interface import BlobReader
from nydusd.base.counters import Counters
from nydusd.cache.blobfile import BlobFile
from nydusd.cache.chunkmap import ChunkMap
from nydusd.cache.durable import DurableRecord
from nydusd.cache.uses import Uses
from nydusd.codec.cipher import BlobCipher
from nydusd.codec.pages import PageCipher
from nydusd.rafs.blobmeta import BlobMeta
from nydusd.rafs.blobs import BlobInfo

logger: logging.Logger
COUNTER_NAMES: tuple[str, ...]

@final
class CachedBlob:
    info: BlobInfo
    chunks: ChunkMap
    file: BlobFile | None
    reader: BlobReader
    counters: Counters
    compressed: bool
    validate: bool
    recheck: bool
    buffered: int
    durable: DurableRecord | None
    def __new__(
        cls,
        info: BlobInfo,
        reader: BlobReader,
        chunks: ChunkMap,
        file: BlobFile | None,
        *,
        describe: Callable[..., BlobMeta] | None = None,
        meta: BlobMeta | None = None,
        digests: bytes = b"",
        cipher: BlobCipher | None = None,
        pages: PageCipher | None = None,
        compressed: bool = False,
        validate: bool = False,
        recheck: bool = False,
        durable: DurableRecord | None = None,
        uses: Uses | None = None,
    ) -> Self: ...
    def close(self) -> None: ...
    def load_description(self) -> None: ...
    @property
    def tracks_uses(self) -> bool: ...
    @property
    def complete(self) -> bool: ...
