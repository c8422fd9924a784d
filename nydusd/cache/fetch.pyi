import logging
from typing import Self, final

from nydusd.cache.cached_blob import CachedBlob

logger: logging.Logger

@final
class Fetch:
    def __new__(cls, blob: CachedBlob, prefetching: bool = False) -> Self: ...
