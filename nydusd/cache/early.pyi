import logging

from nydusd.cache.cached_blob import CachedBlob
from nydusd.cache.fill import Filling
from nydusd.rafs.blobs import BlobFeature

OTHER_UNITS: BlobFeature
logger: logging.Logger

def may_begin_early(blob: CachedBlob) -> bool: ...
def early_end(places: bytes, first: int, most: int) -> int: ...
def get_early(
    blob: CachedBlob, places: bytes, first: int, last: int, batch_size: int
) -> Filling | None: ...
