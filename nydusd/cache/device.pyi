import logging
from collections.abc import Callable, Iterable
from typing import Self, final

from nydusd.cache.cached_blob import CachedBlob

logger: logging.Logger

def waiting_readers() -> int: ...

@final
class Device:
    blobs: tuple[CachedBlob | None, ...]
    batch_size: int
    def __new__(
        cls,
        blobs: Iterable[CachedBlob | None],
        batch_size: int,
        release: Callable[[], None] | None = None,
        on_fetch: Callable[[CachedBlob, int, int], None] | None = None,
    ) -> Self: ...
    def close(self) -> None: ...
    def snapshot(self) -> dict[str, int]: ...

@final
class FetchedRead:
    def __new__(cls, device: Device) -> Self: ...
