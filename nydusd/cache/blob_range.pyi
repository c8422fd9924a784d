from nydusd.cache.cached_blob import CachedBlob
from nydusd.rafs.records import Span

def chunks_in_range(blob: CachedBlob, blob_index: int, offset: int, size: int) -> list[Span]: ...
