"""The files of one blob in the cache directory: opened, made, or done without.

Names and formats: rafs-format, local cache files. What may be believed of files that are there
already is decided here and in `cache.durable`, before anything is served.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.base.errors import CacheError
from nydusd.base.record import NamedTuple
from nydusd.cache.blobfile import BlobFile, has_data
from nydusd.cache.chunkmap import ChunkMap, open_chunk_map, promises_data
from nydusd.cache.durable import CHUNKS_MAX, MapPaths, Record, open_record, view_trusted

if TYPE_CHECKING:
    from nydusd.cache.durable import DurableRecord
    from nydusd.rafs.blobs import BlobInfo

logger = logging.getLogger("nydusd")

INDEX_MAX = 0xFFFFFFFF
DATA_SUFFIXES = (".blob.data", ".blob.raw")


class CachePolicy(NamedTuple):
    """What of the cache section decides how one blob is kept."""

    folder: Path | None  # None: nothing is kept
    compressed: bool
    validate: bool
    use_chunk_map: bool
    size_limit: int = 0  # bytes of the folder; 0 = none
    page_key: bytes = b""  # of encrypted data files; not shown
    keeps_data: bool = True  # False: the folder has what describes blobs, others keep their data

    @property
    def checks_digests(self) -> bool:
        """Whether chunks are held against digests: what another key encrypted passes for data."""
        return self.validate or bool(self.page_key)

    def __repr__(self) -> str:
        """The fields but the key."""
        return f"CachePolicy({self.folder}, {self.compressed}, {self.validate})"


class CacheFiles(NamedTuple):
    """What is open of one blob."""

    chunks: ChunkMap
    file: BlobFile | None = None  # None: nothing is kept
    durable: DurableRecord | None = None  # None: bits are of this process alone, or only read

    def close(self) -> None:
        """Close all of it."""
        if self.durable is not None:
            self.durable.close()
        self.chunks.close()
        if self.file is not None:
            self.file.close()


def made_folder(folder: Path | None) -> Path | None:
    """*folder*, made with its parents; None when there is none and none can be made."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        logger.warning("cache directory %s cannot be made: %s; reads go on without", folder, exc)
        return None
    return folder


def keeps_map(info: BlobInfo, policy: CachePolicy) -> bool:
    """Whether ready bits are kept in a file."""
    return policy.use_chunk_map and info.has_chunk_map and info.chunk_count > 0


def in_memory_map(info: BlobInfo) -> ChunkMap:
    """Bits of this process alone; where the count is unknown, as many as the blob has bytes."""
    return ChunkMap(info.chunk_count or min(info.uncompressed_size or INDEX_MAX, INDEX_MAX))


def map_paths(folder: Path, blob_id: str) -> MapPaths:
    """Where the chunk map of a blob is kept, by either name, and the record beside it."""
    return MapPaths(
        chunk_map=folder / f"{blob_id}.blob.data.chunk_map",
        older_name=folder / f"{blob_id}.chunk_map",
        # In a folder of its own: who collects unused blobs (containerd's snapshotter) takes a name
        # that it does not know for that of a blob, and passes over folders.
        record=folder / "durable" / f"{blob_id}.durable_map",
    )


def data_path(folder: Path, info: BlobInfo, compressed: bool) -> Path:
    """Where the blob's bytes are kept."""
    return folder / f"{info.blob_id}.blob.{'raw' if compressed else 'data'}"


def files_of(data: Path) -> list[Path]:
    """Every file that the blob with the data file *data* may have, that one last."""
    blob_id = data.name.removesuffix(data.suffix).removesuffix(".blob")
    sidecars = [
        data.with_name(f"{blob_id}{suffix}")
        for suffix in (".blob.meta", ".blob.toc", ".blob.digest")
    ]
    return [*map_paths(data.parent, blob_id), *sidecars, data]


def open_files(info: BlobInfo, policy: CachePolicy, folder: Path | None) -> CacheFiles:
    """The blob's chunk map and data file; in a directory that cannot be written, what is there."""
    if folder is None or not policy.keeps_data:
        return CacheFiles(in_memory_map(info))
    path = data_path(folder, info, policy.compressed)
    size = info.data_size if policy.compressed else info.uncompressed_size
    if not keeps_map(info, policy):
        return CacheFiles(in_memory_map(info), open_data(path, size))
    check_encryption(path, policy)
    other = data_path(folder, info, not policy.compressed)
    if other.exists():
        raise CacheError(
            f"{other} is there: a cache directory is compressed or it is not, and the chunk map "
            "is the same; use another work_dir, or remove the files of this blob"
        )
    paths = map_paths(folder, info.blob_id)
    # Maps are read first: whoever fills a blob writes the data before the bit.
    if any(map(promises_data, (paths.chunk_map, paths.older_name))) and not has_data(path, size):
        drop_stale(paths, path)
    file = open_data(path, size)
    if file is None:
        return CacheFiles(in_memory_map(info))
    try:
        return open_map(info, paths, file)
    except BaseException:
        file.close()
        raise


def check_encryption(path: Path, policy: CachePolicy) -> None:
    """Mark an encrypted data file, so that nobody takes its bytes for data in the clear."""
    mark = path.with_name(f"{path.name}.encrypted")
    if policy.page_key:
        try:
            mark.touch()
        except OSError as exc:
            logger.warning("%s cannot be made: %s", mark, exc)
    elif mark.exists():
        raise CacheError(
            f"{path} is encrypted, and enable_encryption is off: turn it on, use another "
            "work_dir, or remove the files of this blob"
        )


def drop_stale(paths: MapPaths, path: Path) -> None:
    """Take a chunk map away that promises bytes which its data file cannot have, and that file.

    Other daemons of the directory keep both, unlinked, and go on; the map goes first, so that at no
    time a fresh data file stands beside the old map (docs/decisions/0011).
    """
    logger.warning("%s promises more than %s holds: both are made anew", paths.chunk_map, path)
    try:
        for stale in (*paths, path):
            stale.unlink(missing_ok=True)
    except OSError as exc:
        raise CacheError(
            f"{paths.chunk_map} promises more than {path} holds and cannot be removed ({exc}): "
            "remove both, or use another work_dir"
        ) from exc


def open_data(path: Path, size: int) -> BlobFile | None:
    """The data file, read-only where it must be; None when there is none and none can be made."""
    try:
        return BlobFile(path, size)
    except OSError as exc:
        reason = str(exc)  # not the exception, which would keep every frame below alive
    try:
        file = BlobFile(path, size, read_only=True)
    except (OSError, CacheError):
        logger.warning("%s cannot be made: %s; reads go on without", path, reason)
        return None
    logger.warning("%s cannot be written: %s; what it has is used", path, reason)
    return file


def open_map(info: BlobInfo, paths: MapPaths, file: BlobFile) -> CacheFiles:
    """The chunk map with its record, in memory where they cannot be written."""
    if not file.keeps:
        return CacheFiles(view_trusted(paths, info.chunk_count, file), file)
    if info.chunk_count > CHUNKS_MAX:
        logger.warning(
            "blob %s is said to have %d chunks: which of them are here is not kept in a file",
            info.blob_id, info.chunk_count,
        )  # fmt: skip
        return CacheFiles(in_memory_map(info), file)
    record: Record | None = None
    try:
        record = open_record(paths, info.chunk_count, file)
        chunks = open_chunk_map(paths.chunk_map, info.chunk_count, paths.older_name)
        return CacheFiles(chunks, file, record.begin(chunks))
    except OSError as exc:
        logger.warning("chunk map %s cannot be used: %s; it stays in memory", paths.chunk_map, exc)
        return CacheFiles(in_memory_map(info), file)
    finally:
        if record is not None:
            record.close()
