"""A range of a blob, as one call."""

from __future__ import annotations

from contextlib import closing

from nydusd.backend.interface import BlobBackend


def read(
    backend: BlobBackend,
    blob_id: str,
    offset: int = 1000,
    size: int = 500,
    *,
    background: bool = False,
) -> bytes:
    """*size* bytes of the blob at *offset*; errors are the reader's."""
    buffer = bytearray(size)
    with closing(backend.reader(blob_id)) as reader:
        reader.read_into(buffer, offset, background=background)
    return bytes(buffer)
