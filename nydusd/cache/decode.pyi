from typing import Self, final

from nydusd.cache.cached_blob import CachedBlob

@final
class Decoder:
    def __new__(cls, blob: CachedBlob) -> Self: ...
