"""Open blobs by what they are: shared between mounts, closed when the last one gives them back.

The one place that puts reader, chunk map, data file and blob meta of a blob together. `daemon` owns
one pool and asks it for a `Device` for each mount, on its control thread; the lock is for others.
"""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nydusd.backend.open import open_backend
from nydusd.base.errors import ConfigError, UnsupportedError
from nydusd.cache.cached_blob import CachedBlob
from nydusd.cache.device import Device
from nydusd.cache.files import CacheFiles, CachePolicy, keeps_map, made_folder, open_files
from nydusd.cache.sidecars import chunk_digests, cipher_of, fetch_blob_meta, kept_blob_meta
from nydusd.cache.tar_blob import open_tar
from nydusd.cache.uses import Uses
from nydusd.codec.pages import PageCipher
from nydusd.config.model import FILE_CACHE_TYPES, LOCAL_BACKENDS, NO_CACHE_TYPES
from nydusd.rafs.blobs import BlobFeature, BlobInfo, is_gzip_members, refuse_unsupported
from nydusd.rafs.chunk_records import digests_of_blob

if TYPE_CHECKING:
    from collections.abc import Callable

    from nydusd.backend.interface import BlobBackend, BlobReader
    from nydusd.cache.ahead import ReadAhead
    from nydusd.cache.quota import Quota
    from nydusd.cache.room import CacheRoom
    from nydusd.config.model import Backend, Cache, FileCache
    from nydusd.rafs.blobmeta import BlobMeta
    from nydusd.rafs.bootstrap import Bootstrap

logger = logging.getLogger("nydusd")

AHEAD_BATCH_MAX = 4 << 20  # a round trip is little beside longer requests, their memory is not


def kernel_cache_policy(cache: Cache) -> CachePolicy:
    """*cache* for blobs that are served to the kernel's cache, which may be all that keeps data."""
    if cache.type != "fscache":
        return cache_policy(cache)
    folder = Path(cache.fscache.work_dir if cache.fscache is not None else ".")
    return CachePolicy(folder, False, cache.validate, False, keeps_data=False)


def cache_policy(cache: Cache) -> CachePolicy:
    """*cache* as far as blobs care; `ConfigError` and `UnsupportedError` for what cannot be."""
    if cache.type in NO_CACHE_TYPES:
        return CachePolicy(None, False, cache.validate, False)
    if cache.type == "fscache":
        raise UnsupportedError(
            "cache type fscache is for nydusd singleton: a FUSE mount keeps data with blobcache"
        )
    if cache.type not in FILE_CACHE_TYPES:
        raise ConfigError(
            f"cache type {cache.type!r} is not known; known: blobcache, filecache, dummycache"
        )
    if cache.filecache is None:
        raise ConfigError(f"cache type {cache.type}: the cache directory (work_dir) is not set")
    return CachePolicy(
        Path(cache.filecache.work_dir),
        cache.compressed,
        cache.validate,
        not cache.filecache.disable_indexed_map,
        cache.filecache.size_limit,
        page_key_of(cache.filecache, compressed=cache.compressed),
    )


def page_key_of(filecache: FileCache, *, compressed: bool) -> bytes:
    """The key of encrypted data files, b"" for files in the clear."""
    if filecache.enable_convergent_encryption:
        raise UnsupportedError(
            "enable_convergent_encryption: keys that follow from the data are not supported; "
            "use enable_encryption with an encryption_key"
        )
    if not filecache.enable_encryption:
        return b""
    if compressed:
        raise ConfigError(
            "enable_encryption: a cache of compressed data is not encrypted; turn one of them off"
        )
    try:
        key = bytes.fromhex(filecache.encryption_key)
        PageCipher(key)
    except ValueError:
        # Neither the text nor what came of it: it is a secret, though a wrong one.
        raise ConfigError(
            "encryption_key: it must be 64 hexadecimal digits, of which the first 32 are not the "
            "last 32 again"
        ) from None
    return key


class BlobPool:
    """Open blobs and backends of one process."""

    def __init__(self, open_backend: Callable[[Backend], BlobBackend] = open_backend) -> None:
        self.open_backend = open_backend
        self._lock = threading.Lock()
        # Guarded by the lock: key -> [object, how many hold it].
        self._backends: dict[Any, list[Any]] = {}
        self._blobs: dict[Any, list[Any]] = {}
        self._rooms: dict[Any, list[Any]] = {}

    def open_device(
        self, bootstrap: Bootstrap, backend: Backend, cache: Cache, batch_size: int = 0
    ) -> Device:
        """A device for every blob of *bootstrap*; its `close` gives the blobs back.

        *batch_size*: bytes of one request with what is fetched along, 0 = exactly what is read.
        `UnsupportedError` for images that this version cannot serve, `BackendError` for a blob that
        is not there, `CacheError` for a cache file of another blob.
        """
        refuse_unsupported(bootstrap.blobs)
        policy = cache_policy(cache)
        ahead = None
        if (
            0 < batch_size <= AHEAD_BATCH_MAX
            and policy.folder
            and backend.type not in LOCAL_BACKENDS
        ):
            from nydusd.cache.ahead import ReadAhead  # there is no round trip to save else

            ahead = ReadAhead(batch_size)
        return self._open(bootstrap.blobs, bootstrap, backend, policy, batch_size, ahead)

    def open_blob(
        self, bootstrap: Bootstrap, blob_index: int, backend: Backend, cache: Cache, batch_size: int
    ) -> Device:
        """A device in which one blob of *bootstrap* is open, for the kernel's cache.

        Raises as `open_device` does.
        """
        info = bootstrap.blobs[blob_index]
        refuse_unsupported([info])
        return self._open([info], bootstrap, backend, kernel_cache_policy(cache), batch_size)

    def _open(
        self,
        infos: list[BlobInfo],
        bootstrap: Bootstrap,
        backend: Backend,
        policy: CachePolicy,
        batch_size: int,
        ahead: ReadAhead | None = None,
    ) -> Device:
        """A device for the blobs *infos* of *bootstrap*."""
        held: list[Any] = []
        blobs: list[CachedBlob | None] = [None] * len(bootstrap.blobs)
        try:
            with self._lock:
                source = self._take(
                    self._backends, backend, lambda: self.open_backend(backend), held
                )
                quota = None
                if policy.size_limit and (folder := made_folder(policy.folder)):
                    quota = self._take_room(folder, policy.size_limit, held).quota
                for info in filter(has_chunks, infos):
                    digests = bootstrap_digests(bootstrap, info, policy)
                    blobs[info.blob_index] = self._take(
                        self._blobs,
                        (backend, policy, info, digests),
                        partial(open_blob, info, source, policy, digests, quota),
                        held,
                    )
        except BaseException:
            self._give_back(held)
            raise
        if ahead is None:
            return Device(blobs, batch_size, lambda: self._give_back(held))

        def release() -> None:
            ahead.close()
            self._give_back(held)

        return Device(blobs, batch_size, release, ahead.note)

    def _take_room(self, folder: Path, limit: int, held: list[Any]) -> CacheRoom:
        from nydusd.cache.room import CacheRoom  # few directories have a limit

        def make() -> CacheRoom:
            room = CacheRoom(folder, limit, self.blobs)
            room.start()
            return room

        room: CacheRoom = self._take(self._rooms, (folder, limit), make, held)
        return room

    def _take(
        self, table: dict[Any, list[Any]], key: object, make: Callable[[], Any], held: list[Any]
    ) -> Any:  # noqa: ANN401 - a backend or a blob
        row = table.get(key)
        if row is None:
            row = table[key] = [make(), 0]
        row[1] += 1
        held.append((table, key))
        return row[0]

    def _give_back(self, held: list[Any]) -> None:
        closing = []
        with self._lock:
            for table, key in reversed(held):
                row = table[key]
                row[1] -= 1
                if row[1] == 0:
                    del table[key]
                    closing.append(row[0])
            held.clear()
        for thing in closing:
            thing.close()

    def backend(self, config: Backend) -> BlobBackend:
        """The backend of *config*, of which a device is open; borrowed while it is."""
        with self._lock:
            backend: BlobBackend = self._backends[config][0]
            return backend

    def blobs(self) -> list[CachedBlob]:
        """The blobs that are open now."""
        with self._lock:
            return [row[0] for row in self._blobs.values()]


def open_device(
    bootstrap: Bootstrap, backend: Backend, cache: Cache, batch_size: int = 0
) -> Device:
    """A device with blobs of its own, for programs with one image; see `BlobPool.open_device`."""
    return BlobPool().open_device(bootstrap, backend, cache, batch_size)


def has_chunks(info: BlobInfo) -> bool:
    """Whether anything can be read of the blob; one without chunks need not exist anywhere."""
    return info.chunk_count > 0 or not info.has_chunk_map


def open_blob(
    info: BlobInfo,
    backend: BlobBackend,
    policy: CachePolicy,
    told: bytes = b"",
    room: Quota | None = None,
) -> CachedBlob:
    """One blob of *backend* with its cache files as *policy* has it.

    *told*: chunk digests by the bootstrap, for a blob that has none itself. *room*: what is asked
    before anything is kept.
    """
    folder = made_folder(policy.folder)
    if info.features & BlobFeature.TARFS:
        return open_tar(info, backend, folder)
    if policy.page_key and info.version == 5:
        raise UnsupportedError(
            f"blob {info.blob_id}: an encrypted cache holds chunks in pages of their own, which "
            "those of a v5 image do not have: convert it to v6, or turn enable_encryption off"
        )
    reader = backend.reader(info.blob_id)
    files: CacheFiles | None = None
    try:
        files = open_files(info, policy, folder)
        describe = meta = None
        if info.ci_compressed_size:
            describe = MetaSource(info, backend, folder)
            meta = kept_blob_meta(info, meta_path(folder, info)) if folder else None
        digests = digests_of(info, backend, policy, folder) or told
        members = is_gzip_members(info)
        wanted = policy.checks_digests and not members
        if policy.validate and not members and info.version == 6 and not digests:
            logger.warning(
                "blob %s: its chunks cannot be validated: neither it nor the bootstrap has their "
                "digests",
                info.blob_id,
            )
        return CachedBlob(
            info,
            reader,
            files.chunks,
            files.file,
            describe=describe,
            meta=meta,
            digests=digests,
            cipher=cipher_of(info),
            compressed=policy.compressed,
            pages=PageCipher(policy.page_key) if policy.page_key and files.file else None,
            # v5 has digests in the bootstrap; v6 in the blob or in the bootstrap's chunk table.
            # What another key, or nobody, has encrypted must not pass for data.
            validate=wanted and (info.version == 5 or bool(digests)),
            recheck=files.file is not None and not keeps_map(info, policy) and not members,
            durable=files.durable,
            uses=Uses(files.chunks.count, room) if policy.size_limit else None,
        )
    except BaseException:
        reader.close()
        if files is not None:
            files.close()
        raise


def meta_path(folder: Path, info: BlobInfo) -> Path:
    """Where the blob's CI array is kept."""
    return folder / f"{info.blob_id}.blob.meta"


class MetaSource:
    """What gets the blob's CI array when it is first needed, from whichever blob holds it.

    Readers go on as soon as it is there; `finish` keeps it for the next start.
    """

    def __init__(self, info: BlobInfo, backend: BlobBackend, folder: Path | None) -> None:
        self._info = info
        self._backend = backend
        self._path = meta_path(folder, info) if folder else None
        self._later: list[Callable[[], None]] = []

    def __call__(self, reader: BlobReader, *, fresh: bool = False) -> BlobMeta:
        """The CI array; *reader* is the blob's own. One thread at a time."""
        info = self._info
        if info.meta_blob_id == info.blob_id:
            return fetch_blob_meta(info, reader, self._path, fresh=fresh, later=self._later)
        meta_reader = self._backend.reader(info.meta_blob_id)
        try:
            return fetch_blob_meta(info, meta_reader, self._path, fresh=fresh, later=self._later)
        finally:
            meta_reader.close()

    def finish(self) -> None:
        """Do what remains to be done of it; by the thread that got it, when all others may go."""
        while self._later:
            self._later.pop()()


def bootstrap_digests(bootstrap: Bootstrap, info: BlobInfo, policy: CachePolicy) -> bytes:
    """The digests that the bootstrap has of a blob without a digest table of its own."""
    apart = BlobFeature.INLINED_CHUNK_DIGEST | BlobFeature.TARFS
    if info.version == 5 or not policy.checks_digests or info.features & apart:
        return b""
    return digests_of_blob(bootstrap, info.blob_index, info.chunk_count)


def digests_of(
    info: BlobInfo, backend: BlobBackend, policy: CachePolicy, folder: Path | None
) -> bytes:
    """The digest table of a blob that is to be validated and has one, else nothing."""
    wanted = policy.checks_digests and info.ci_compressed_size > 0
    if not wanted or not info.features & BlobFeature.INLINED_CHUNK_DIGEST:
        return b""
    reader = backend.reader(info.meta_blob_id)
    try:
        return chunk_digests(info, reader, folder)
    finally:
        reader.close()
