"""Mounts: puts one image together, gives it a place in the tree, and takes it apart again.

Each step of a mount is undone in reverse when a later one fails. Mounts and umounts run one after
another (a lock stands for the control thread); readers do not notice.
"""

import logging
import os
import threading
import time
from contextlib import ExitStack
from enum import Enum
from itertools import chain
from typing import NamedTuple

from nydusd.base.errors import ConfigError, MountError
from nydusd.cache.device import Device
from nydusd.cache.pool import BlobPool
from nydusd.config.model import Config
from nydusd.daemon.image_rules import image_problems
from nydusd.fs.rafsfs import RafsFs
from nydusd.fs.vfs import Vfs
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.hints import spans_to_prefetch, wants_everything
from nydusd.rafs.load import load_bootstrap

logger = logging.getLogger("nydusd")


class MountKind(Enum):
    """What stands behind a mount, in the words of the mount API."""

    RAFS = "rafs"
    PASSTHROUGH = "passthrough_fs"


class MountRequest(NamedTuple):
    """One mount as it was asked for; enough to repeat it in another process."""

    kind: MountKind
    source: str  # bootstrap path
    config: Config
    mountpoint: str  # absolute path in the tree of this daemon
    prefetch_files: tuple[str, ...] = ()  # absolute paths in the image; none = as the image hints


class Mount(NamedTuple):
    """A mount that is served."""

    request: MountRequest
    slot: int
    mounted_at: float  # seconds since the epoch
    parts: ExitStack  # closes what the file system was made of


class Mounts:
    """All mounts of one daemon, over its mount table *vfs*."""

    def __init__(self, vfs: Vfs, pool: BlobPool, start_time: float) -> None:
        self._vfs = vfs
        self._pool = pool
        self._start_time = start_time  # shown for times that an image leaves at 0
        self._mounts: dict[str, Mount] = {}  # guarded by self._lock
        self._abandoned: list[Mount] = []  # unmounted with requests inside; guarded by self._lock
        self._lock = threading.Lock()

    def mount(self, request: MountRequest) -> None:
        """Serve what *request* names; `MountError`, `ConfigError`, `BootstrapError`, ..."""
        if request.kind is not MountKind.RAFS:
            raise MountError(f"{request.kind.value} mounts are not in this version yet")
        with self._lock, ExitStack() as undo:
            if request.mountpoint in self._mounts:
                raise MountError(f"{request.mountpoint} is mounted already")
            filesystem = self._open_rafs(request, undo)
            slot = self._vfs.mount(filesystem, request.mountpoint)
            self._mounts[request.mountpoint] = Mount(request, slot, time.time(), undo.pop_all())
        logger.info("Rafs filesystem mounted at %s", request.mountpoint)

    def _open_rafs(self, request: MountRequest, undo: ExitStack) -> RafsFs:
        """The file system of *request*; what it is made of is closed by *undo*."""
        config = request.config
        if config.backend is None or config.cache is None or config.rafs is None:
            raise ConfigError("a mount needs the sections backend, cache and rafs")
        bootstrap = load_bootstrap(request.source, validate=config.rafs.validate)
        if problems := image_problems(bootstrap, config):
            raise ConfigError("; ".join(problems), tuple(problems))
        device = self._pool.open_device(
            bootstrap, config.backend, config.cache, config.rafs.batch_size
        )
        undo.callback(device.close)
        self._start_prefetch(request, bootstrap, device, undo)
        return RafsFs(
            bootstrap,
            device,
            start_time=self._start_time,
            enable_xattr=config.rafs.enable_xattr,
            batch_size=config.rafs.batch_size,
        )

    def _start_prefetch(
        self, request: MountRequest, bootstrap: Bootstrap, device: Device, undo: ExitStack
    ) -> None:
        """Fill the cache in the background, if both halves of the configuration ask for it."""
        assert request.config.cache is not None
        assert request.config.rafs is not None
        work, wish = request.config.cache.prefetch, request.config.rafs.prefetch
        if not (work.enable and wish.enable):
            return
        from nydusd.cache.prefetch import Prefetcher  # few mounts ask for it

        paths = [os.fsencode(path) for path in request.prefetch_files]
        everything = wants_everything(bootstrap, paths, prefetch_all=wish.prefetch_all)
        spans = spans_to_prefetch(bootstrap, paths)
        if everything and bootstrap.version == 5:  # without a CI array: by way of the files
            spans = chain(spans, spans_to_prefetch(bootstrap, [b"/"]))
        prefetcher = Prefetcher(device, work, spans, everything=everything)
        undo.callback(prefetcher.close)
        prefetcher.start()

    def umount(self, mountpoint: str, timeout: float | None = None) -> bool:
        """Take *mountpoint* away and close its parts once no request is in flight there.

        Waits for the requests inside, at most *timeout* seconds. False: some are still inside, and
        what they use stays open until the process ends.
        """
        with self._lock:
            mount = self._mounts.pop(mountpoint, None)
            if mount is None:
                raise MountError(f"{mountpoint} is not mounted")
            if not self._vfs.umount(mountpoint, timeout):
                self._abandoned.append(mount)
                return False
            mount.parts.close()
            return True

    def list(self) -> dict[str, Mount]:
        """Mounts by their path, at this moment."""
        with self._lock:
            return dict(self._mounts)

    def close(self, timeout: float | None = None) -> None:
        """Umount everything; a backend that does not answer delays it by *timeout* a mount."""
        for mountpoint in self.list():
            if not self.umount(mountpoint, timeout):
                logger.warning(
                    "%s: reads still wait for the backend, they are given up", mountpoint
                )
