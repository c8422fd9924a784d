"""From the list of blobs to what the kernel's cache is served: files and open blobs."""

from functools import partial

from nydusd.cache.pool import BlobPool
from nydusd.config.model import DEFAULT_BATCH_SIZE
from nydusd.daemon.blobs import BlobTable, DataBlob, MetaBlob
from nydusd.fscache.sources import BootstrapSource, DataSource, Filling, Source


def find_source(table: BlobTable, pool: BlobPool, domain_id: str, blob_id: str) -> Source | None:
    """What stands behind a blob of *table*; its data is got through *pool*."""
    found = table.find(domain_id, blob_id)
    if isinstance(found, MetaBlob):
        return BootstrapSource(found.path)
    if isinstance(found, DataBlob):
        return data_source(found, pool)
    return None


def data_source(blob: DataBlob, pool: BlobPool) -> DataSource:
    """The data blob *blob*, and how much of it is got in advance."""
    entry, info = blob.entry, blob.info
    prefetch = entry.cache.prefetch
    filling = None
    if prefetch.enable:
        filling = Filling(prefetch.threads, prefetch.batch_size, prefetch.bandwidth_limit)
    return DataSource(
        info.blob_id,
        info.blob_index,
        info.uncompressed_size,
        partial(
            pool.open_blob,
            blob.bootstrap,
            info.blob_index,
            entry.backend,
            entry.cache,
            DEFAULT_BATCH_SIZE,
        ),
        filling,
    )
