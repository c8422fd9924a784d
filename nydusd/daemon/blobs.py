"""The blobs of a singleton daemon: images added one by one, and the data blobs they share.

A bootstrap stands once under its domain and id; a data blob is there as long as an image of the
domain uses it. Nothing is opened here: that happens when the kernel asks. Changed on the control
thread, looked at by the threads that answer the kernel.
"""

import errno
import logging
import os
import stat
import threading
from pathlib import Path

from nydusd.base.errors import BootstrapError, ConfigError, NydusError
from nydusd.base.record import NamedTuple
from nydusd.config.blob_entry import BOOTSTRAP, CACHE_TYPES, BlobEntry, make_entry
from nydusd.rafs.blobs import BlobFeature, BlobInfo, refuse_unsupported
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.load import load_bootstrap

__all__ = ["BlobTable", "make_entry"]  # and what is here

logger = logging.getLogger("nydusd")

Key = tuple[str, str]  # domain, id


class BlobRefused(NydusError):
    """A blob entry that cannot be; *number* is the errno that clients are told, with the reason."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"{os.strerror(number)} (os error {number}): blob_cache: {reason}")
        self.errno = number


class AlreadyThere(NydusError):
    """A bootstrap of that domain and id is there."""

    errno = errno.EEXIST

    def __init__(self) -> None:
        super().__init__("blob_cache: bootstrap blob already exists")


class MetaBlob(NamedTuple):
    """A bootstrap and what it was added with."""

    entry: BlobEntry
    path: Path
    data: tuple[Key, ...]  # the blobs that it uses


class DataBlob(NamedTuple):
    """A data blob, read as the first image of its domain was configured that uses it."""

    entry: BlobEntry
    bootstrap: Bootstrap
    info: BlobInfo


class BlobTable:
    """All blobs of one daemon."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._meta: dict[Key, MetaBlob] = {}  # guarded by self._lock, like the two below
        self._data: dict[Key, DataBlob] = {}
        self._uses: dict[Key, int] = {}

    def add(self, entry: BlobEntry) -> None:
        """Know the image of *entry*; `BlobRefused`, `AlreadyThere`, `OSError`, `BootstrapError`."""
        path = checked_path(entry)
        bootstrap = load_bootstrap(path)
        check_image(bootstrap)
        key = (entry.domain_id, entry.id)
        with self._lock:
            if key in self._meta:
                raise AlreadyThere
            used = []
            for info in bootstrap.blobs:
                data_key = (entry.domain_id, info.blob_id)
                if data_key in used:
                    continue
                used.append(data_key)
                self._data.setdefault(data_key, DataBlob(entry, bootstrap, info))
                self._uses[data_key] = self._uses.get(data_key, 0) + 1
            self._meta[key] = MetaBlob(entry, path, tuple(used))
        logger.info("blob %s of domain %s added", entry.id, entry.domain_id or "(none)")

    def remove(self, domain_id: str, blob_id: str) -> None:
        """Forget a bootstrap and the data blobs that nobody else uses, or one data blob.

        Without *blob_id* all of a domain, be there any or not. `BlobRefused` when it is not here.
        What the kernel has open goes on.
        """
        with self._lock:
            if domain_id and not blob_id:
                for key in [key for key in self._meta if key[0] == domain_id]:
                    self._forget(key)
                for key in [key for key in self._data if key[0] == domain_id]:
                    del self._data[key], self._uses[key]
                return
            key = (domain_id, blob_id)
            if key in self._meta:
                self._forget(key)
            elif key in self._data:
                self._unuse(key)
            else:
                raise BlobRefused(errno.ENOENT, "cache entry not found")

    def _forget(self, key: Key) -> None:
        for data_key in self._meta.pop(key).data:
            self._unuse(data_key)

    def _unuse(self, key: Key) -> None:
        left = self._uses.get(key, 0) - 1
        if left > 0:
            self._uses[key] = left
        else:  # taken away by hand before, perhaps
            self._uses.pop(key, None)
            self._data.pop(key, None)

    def find(self, domain_id: str, blob_id: str) -> MetaBlob | DataBlob | None:
        """The blob of that domain and id."""
        with self._lock:
            key = (domain_id, blob_id)
            return self._meta.get(key) or self._data.get(key)

    def entries(self) -> list[BlobEntry]:
        """What was added, in that order."""
        with self._lock:
            return [blob.entry for blob in self._meta.values()]


def checked_path(entry: BlobEntry) -> Path:
    """The bootstrap's path of an *entry* that makes sense; `BlobRefused` says what does not."""
    if entry.kind != BOOTSTRAP:
        raise BlobRefused(errno.EINVAL, f"type {entry.kind!r} cannot be added, only {BOOTSTRAP!r}")
    checked_name("id", entry.id)
    checked_name("domain_id", entry.domain_id)
    if entry.cache.type not in CACHE_TYPES:
        raise BlobRefused(errno.EINVAL, f"cache type {entry.cache.type!r} keeps nothing")
    kept = entry.cache.fscache if entry.cache.type == "fscache" else entry.cache.filecache
    check_folder(kept.work_dir if kept is not None else "")
    if not entry.metadata_path:
        raise BlobRefused(errno.EINVAL, "metadata_path is missing")
    try:
        path = Path(entry.metadata_path).resolve(strict=True)
        if not path.is_file():
            raise BlobRefused(errno.EINVAL, f"metadata_path {entry.metadata_path!a}: not a file")
    except (OSError, RuntimeError) as exc:  # RuntimeError: a loop of links
        reason = f"metadata_path {entry.metadata_path!a}: {exc}"
        raise BlobRefused(errno.EINVAL, reason) from exc
    return path


def checked_name(field: str, text: str) -> str:
    """*text* if it can be the name of a file; `BlobRefused`."""
    if "/" in text or "\0" in text:
        raise BlobRefused(errno.EINVAL, f"{field} {text!a} is not a name")
    return text


def check_folder(work_dir: str) -> None:
    """`BlobRefused` unless *work_dir* is a directory."""
    try:
        mode = Path(work_dir).stat().st_mode
    except (OSError, ValueError) as exc:
        raise BlobRefused(errno.EIO, f"work_dir {work_dir!a}: {exc}") from exc
    if not stat.S_ISDIR(mode):
        raise BlobRefused(errno.EINVAL, f"work_dir {work_dir!a}: not a directory")


def check_image(bootstrap: Bootstrap) -> None:
    """`BlobRefused` for an image that EROFS cannot read, or whose data cannot be had."""
    if bootstrap.version == 5:
        raise BlobRefused(errno.EINVAL, "RAFS v5 images are not supported")
    for info in bootstrap.blobs:
        if info.features & BlobFeature.TARFS:
            raise BlobRefused(errno.EINVAL, f"blob {info.blob_id} is a tar: mount it with fuse")
    refuse_unsupported(bootstrap.blobs)


def add_all(table: BlobTable, entries: tuple[BlobEntry, ...]) -> None:
    """Add *entries* at the start of a daemon; `ConfigError` for the first that cannot be."""
    for entry in entries:
        try:
            table.add(entry)
        except (NydusError, OSError, BootstrapError) as exc:
            raise ConfigError(f"Failed to add blob list: {entry.id!a}: {exc}") from exc
