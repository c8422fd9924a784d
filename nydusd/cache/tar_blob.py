"""Blobs that are tar files (tarfs): read where they lie, nothing of them is copied.

Whoever prepares such an image puts the tar into the cache directory under its bare blob id
(rafs-format, tarfs); there its mapping answers reads. A tar that is only in the backend is read
from there each time. Formats: docs/formats/cache-files.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.backend.interface import BlobReader
from nydusd.base.errors import BackendError
from nydusd.cache.blobfile import BlobFile
from nydusd.cache.cached_blob import CachedBlob
from nydusd.cache.chunkmap import ChunkMap

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from nydusd.backend.interface import BlobBackend
    from nydusd.rafs.blobs import BlobInfo


class NoReader(BlobReader):
    """Stands for a blob that the backend does not have, because of *reason*."""

    def __init__(self, reason: BackendError) -> None:
        self._reason = str(reason)

    def size(self) -> int:
        """`BackendError`."""
        raise BackendError(self._reason)

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """`BackendError`."""
        raise BackendError(self._reason)

    def close(self) -> None:
        """Nothing is held."""


def open_tar(info: BlobInfo, backend: BlobBackend, folder: Path | None) -> CachedBlob:
    """The tar *info*, from *folder* when it is there, else from *backend*.

    `BackendError` when neither has it, `CacheError` when the file in *folder* has another length.
    """
    file = tar_file(info, folder)
    reader: BlobReader
    try:
        reader = backend.reader(info.blob_id)
    except BackendError as exc:
        if file is None:
            raise
        reader = NoReader(exc)
    chunks = ChunkMap(1)  # one bit: whether the file counts
    chunks.mark_ready(0)
    return CachedBlob(info, reader, chunks, file)


def tar_file(info: BlobInfo, folder: Path | None) -> BlobFile | None:
    """The tar in *folder*, to be read only; None when there is none."""
    if folder is None or info.uncompressed_size == 0:
        return None
    try:
        return BlobFile(folder / info.blob_id, info.uncompressed_size, read_only=True)
    except OSError:
        return None
