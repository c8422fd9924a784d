"""Bootstraps that lie in a blob of the backend, found by the blob's id.

A mount that names a blob instead of a bootstrap file gets the bootstrap out of the blob's tail; it
is kept as `.image.boot` beside the other cache files and used again while the table of contents
vouches for it (rafs-format, local cache files). Called by the thread that mounts.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError, BlobCorrupt, BootstrapError
from nydusd.cache.sidecars import read_file, read_range, write_by_rename
from nydusd.rafs.load import blob_id_of_path, bootstrap_of_bytes, load_bootstrap
from nydusd.rafs.toc import (
    BOOTSTRAP_SECTION,
    SECTION_SIZE_MAX,
    find_sections,
    open_section,
    tail_size,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.backend.interface import BlobBackend
    from nydusd.rafs.bootstrap import Bootstrap
    from nydusd.rafs.toc import Section

logger = logging.getLogger("nydusd")


def find_bootstrap(
    path: str, open_backend: Callable[[], BlobBackend], folder: Path | None, *, validate: bool
) -> Bootstrap:
    """The bootstrap in the file *path*, or in the blob that its name says.

    The name up to the first dot is looked for in the backend when the file is missing, or holds no
    bootstrap. *folder*: the cache directory, None for none. Errors are those of `load_bootstrap`.
    """
    try:
        return load_bootstrap(path, validate=validate)
    except (BootstrapError, FileNotFoundError) as exc:
        reason: Exception = exc
    blob_id = blob_id_of_path(path)
    try:
        backend = open_backend()
        try:
            data = inlined_bootstrap(blob_id, backend, folder)
        finally:
            backend.close()
    except (BackendError, BlobCorrupt) as exc:
        logger.info("%s is no bootstrap, and there is no blob with one: %s", path, exc)
        raise reason from exc
    return bootstrap_of_bytes(data, path, validate=validate)


def inlined_bootstrap(blob_id: str, backend: BlobBackend, folder: Path | None) -> bytes:
    """The bootstrap inside the blob *blob_id*; `BackendError`, `BlobCorrupt` without one."""
    if not blob_id:
        raise BlobCorrupt("the name of the file names no blob")
    reader = backend.reader(blob_id)
    try:
        size = reader.size()
        tail = read_range(reader, size - tail_size(size), tail_size(size))
        section = find_sections(tail, size).get(BOOTSTRAP_SECTION)
        if section is None:
            raise BlobCorrupt(f"blob {blob_id} has no bootstrap at its end")
        path = folder / f"{blob_id}.image.boot" if folder is not None else None
        if path is not None and (kept := kept_bootstrap(path, section)) is not None:
            return kept
        stored = read_range(reader, section.offset, section.compressed_size)
        data = open_section(section, stored)
    finally:
        reader.close()
    if path is not None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            logger.warning("cache directory %s cannot be made: %s", path.parent, exc)
        else:
            write_by_rename(path, data, f"{blob_id}.image.toc_downloading")
    return data


def kept_bootstrap(path: Path, section: Section) -> bytes | None:
    """What *path* has when the table of contents vouches for it."""
    if not section.digest:
        return None
    import hashlib  # 5 ms at start, for few

    kept = read_file(path, min(section.uncompressed_size, SECTION_SIZE_MAX))
    if kept is None or hashlib.sha256(kept).digest() != section.digest:
        return None
    return kept
