import logging
from typing import Final, Self, final

from nydusd.base.errors import FailureKind
from nydusd.cache.cached_blob import CachedBlob

logger: logging.Logger
RANGE_FAILURES: tuple[FailureKind, ...]
STATUS_NOT_SATISFIABLE: Final = 416

@final
class Fetch:
    def __new__(cls, blob: CachedBlob, prefetching: bool = False) -> Self: ...
