from typing import Self, final

from nydusd.cache.cached_blob import CachedBlob
from nydusd.cache.decode import Decoder

@final
class Claims:
    def __new__(cls, blob: CachedBlob, decoder: Decoder) -> Self: ...
