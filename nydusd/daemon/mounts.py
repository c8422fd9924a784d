"""Mounts: puts one together, gives it a place in the tree, and takes it apart again.

Each step of a mount is undone in reverse when a later one fails. Mounts and umounts run one after
another, on the control thread where there is one; readers do not notice. An umount does not wait
for requests that are inside: `tidy` closes what they use when the last one has ended.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Protocol

from nydusd.base.errors import ConfigError, MountError
from nydusd.base.record import NamedTuple
from nydusd.base.tracing import read_trace
from nydusd.cache.device import Device
from nydusd.cache.inlined import find_bootstrap
from nydusd.cache.pool import BlobPool, cache_policy
from nydusd.config.model import LOCAL_BACKENDS, Config
from nydusd.daemon.errors import AlreadyMounted, NotMounted, WrongMountKind
from nydusd.daemon.host_mount import HostParts, open_host_directory
from nydusd.daemon.image_rules import image_problems
from nydusd.daemon.mount_request import MountKind, MountRequest, normal_mountpoint
from nydusd.daemon.mount_text import mount_text
from nydusd.fs.filesystem import Filesystem
from nydusd.fs.rafsfs import RafsFs
from nydusd.fs.stats import FsStats
from nydusd.fs.vfs import Vfs
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.hints import spans_to_prefetch, wants_everything

if TYPE_CHECKING:
    from nydusd.cache.prefetch import Prefetcher
    from nydusd.fs.overlay import OverlayFs

__all__ = ["Mount", "MountKind", "MountRequest", "Mounts"]

logger = logging.getLogger("nydusd")

LOGGED_KINDS = {MountKind.RAFS: "Rafs", MountKind.PASSTHROUGH: "PassthroughFs"}

PREFETCH_SECONDS = 60.0  # a prefetch that does not end within it is left to itself
LOCK_SECONDS = 2.0  # at the end of the daemon, for a mount that hangs in its backend
LOOK_SECONDS = 0.005


class ChangeableBackend(Protocol):
    """Where the image's data comes from, as far as a daemon cares."""

    def change_setting(self, name: str, value: str) -> bool:
        """Take on a new value; whether there is such a setting."""


class Parts(NamedTuple):
    """What one mounted image is made of."""

    filesystem: Filesystem
    bootstrap: Bootstrap
    device: Device
    backend: ChangeableBackend  # borrowed from the pool while the device is open
    prefetcher: "Prefetcher | None"
    undo: ExitStack  # closes them


class Mount(NamedTuple):
    """A mount that is served."""

    request: MountRequest
    slot: int
    mounted_ns: int  # since the epoch
    parts: Parts | HostParts
    text: str  # as the API shows it

    @property
    def image(self) -> Parts:
        """The parts of an image; `WrongMountKind` when it is none."""
        if isinstance(self.parts, Parts):
            return self.parts
        raise WrongMountKind(f"{self.request.source} is no image")


def new_mount(mountpoint: str, request: MountRequest, slot: int, parts: Parts | HostParts) -> Mount:
    """A mount made now."""
    now = time.time_ns()
    return Mount(request, slot, now, parts, mount_text(mountpoint, request, now))


def root_names(parts: Parts | HostParts) -> Iterable[bytes]:
    """The names in the root of a mounted file system; `OSError` when they cannot be read."""
    if isinstance(parts, HostParts):
        return parts.filesystem.root_names()
    bootstrap = parts.bootstrap
    return (entry.name for entry in bootstrap.iter_entries(bootstrap.root_ino))


class Mounts:
    """All mounts of one daemon, over its mount table *vfs*."""

    def __init__(
        self,
        vfs: Vfs,
        pool: BlobPool,
        start_time: float,
        own_device: Callable[[], int] = lambda: -1,
        *,
        writable: bool = False,
    ) -> None:
        self._vfs = vfs
        self._pool = pool
        self._start_time = start_time  # shown for times that an image leaves at 0
        self._own_device = own_device  # of the kernel mount; -1 = not known
        self._writable = writable  # an overlay may be changed
        self._lock = threading.Lock()
        self._mounts: dict[str, Mount] = {}  # replaced, not changed, under self._lock
        # Unmounted, and nobody inside: their parts, and when they were given up (monotonic).
        self._gone: list[tuple[Parts | HostParts, float]] = []  # guarded by the GIL

    def mount(self, request: MountRequest, slot: int = 0, *, recovers: bool = False) -> Mount:
        """Serve what *request* names, in *slot* or the next free one.

        *recovers*: another process has served it before, and the kernel knows its inodes.
        `MountError`, `ConfigError`, `BootstrapError`, `BackendError`, ...: nothing is left of it
        then.
        """
        mountpoint = normal_mountpoint(request.mountpoint)
        with self._lock, ExitStack() as undo:
            self._check_place(mountpoint)
            parts = self._open(request, undo, recovers=recovers)
            slot = self._vfs.mount(parts.filesystem, mountpoint, slot)
            undo.callback(self._vfs.umount, mountpoint)
            self._forget_names(mountpoint, parts)
            if parts.prefetcher is not None:
                parts.prefetcher.start()
            mount = new_mount(mountpoint, request, slot, parts)
            self._mounts = {**self._mounts, mountpoint: mount}
            undo.pop_all()
        logger.info("%s filesystem mounted at %s", LOGGED_KINDS[request.kind], mountpoint)
        return mount

    def remount(self, request: MountRequest) -> Mount:
        """Put what *request* names in the place of the image that is mounted there.

        Requests that are inside go on with the old one. Fails as `mount` does, and then the old one
        stays.
        """
        mountpoint = normal_mountpoint(request.mountpoint)
        with self._lock, ExitStack() as undo:
            old = self._mounts.get(mountpoint)
            if old is None:
                raise NotMounted(f"{mountpoint}: nothing is mounted there")
            if request.kind is not MountKind.RAFS or old.request.kind is not MountKind.RAFS:
                raise WrongMountKind(f"{mountpoint}: only an image takes the place of an image")
            parts = self._open(request, undo)
            self._stop_prefetch(old.parts)
            self._vfs.remount(parts.filesystem, mountpoint, 0, lambda: self._give_up(old.parts))
            self._forget_names(mountpoint, old.parts)
            self._forget_names(mountpoint, parts)
            undo.pop_all()
            mount = new_mount(mountpoint, request, old.slot, parts)
            self._mounts = {**self._mounts, mountpoint: mount}
            if parts.prefetcher is not None:
                parts.prefetcher.start()
        logger.info("Rafs filesystem mounted anew at %s", mountpoint)
        return mount

    def _check_place(self, mountpoint: str) -> None:
        """Refuse a path that is taken, or where one mount would hide another."""
        if mountpoint in self._mounts:
            raise AlreadyMounted(f"{mountpoint} is mounted already")
        inside = mountpoint.rstrip("/") + "/"
        for other in self._mounts:
            if mountpoint.startswith(other.rstrip("/") + "/"):
                raise MountError(
                    f"{mountpoint} lies inside the mount at {other}: nobody would see it"
                )
            if other.startswith(inside):
                raise MountError(f"{mountpoint} would hide the mount at {other}")

    def _open(
        self, request: MountRequest, undo: ExitStack, *, recovers: bool = False
    ) -> Parts | HostParts:
        """The file system of *request* and all it is made of, which *undo* closes."""
        if request.kind is MountKind.PASSTHROUGH:
            return open_host_directory(
                request.source, undo, own_device=self._own_device, recovers=recovers
            )
        return self._open_image(request, undo, recovers=recovers)

    def _open_image(self, request: MountRequest, undo: ExitStack, *, recovers: bool) -> Parts:
        config = request.config
        if config.backend is None or config.cache is None or config.rafs is None:
            raise ConfigError("a mount needs the sections backend, cache and rafs")
        backend_config, cache_config = config.backend, config.cache
        bootstrap = find_bootstrap(
            request.source,
            lambda: self._pool.open_backend(backend_config),
            cache_policy(cache_config).folder,
            validate=config.rafs.validate,
        )
        if problems := image_problems(bootstrap, config):
            raise ConfigError("; ".join(problems), tuple(problems))
        device = self._pool.open_device(
            bootstrap, config.backend, config.cache, config.rafs.batch_size
        )
        undo.callback(device.close)
        warmup = None
        if config.backend.type not in LOCAL_BACKENDS:
            from nydusd.cache.warmup import Warmup  # local blobs have nothing to wait for

            warmup = Warmup(device)
            undo.callback(warmup.close)
            warmup.start()
        prefetcher = self._prefetcher(request, bootstrap, device)
        if prefetcher is not None:
            undo.callback(prefetcher.close)
        filesystem = RafsFs(
            bootstrap,
            device,
            start_time=self._start_time,
            enable_xattr=config.rafs.enable_xattr,
            batch_size=config.rafs.batch_size,
            stats=FsStats(
                bootstrap.inodes_count,
                per_file=config.rafs.iostats_files,
                access_pattern=config.rafs.access_pattern,
                latest_read=config.rafs.latest_read_files,
            ),
            trace=read_trace(request.mountpoint),
        )
        served, overlay = self._writable_layer(filesystem, config, undo, recovers=recovers)
        closes = ExitStack()
        closes.callback(device.close)
        if warmup is not None:
            closes.callback(warmup.close)
        if prefetcher is not None:
            closes.callback(prefetcher.close)
        if overlay is not None:
            closes.callback(overlay.close)
        backend = self._pool.backend(config.backend)
        return Parts(served, bootstrap, device, backend, prefetcher, closes)

    def _writable_layer(
        self, image: Filesystem, config: Config, undo: ExitStack, *, recovers: bool
    ) -> "tuple[Filesystem, OverlayFs | None]":
        """What is served of *image*: itself, or the overlay that *config* asks for.

        Without `--writable` an overlay is shown as it is, and nothing is written.
        """
        if config.overlay is None:
            return image, None
        from nydusd.fs.overlay import OverlayFs, open_overlay  # few mounts ask for it

        overlay: OverlayFs = open_overlay(
            image,
            config.overlay.upper_dir,
            config.overlay.work_dir,
            writable=self._writable,
            recovers=recovers,
        )
        undo.callback(overlay.close)
        return overlay, overlay

    def _prefetcher(
        self, request: MountRequest, bootstrap: Bootstrap, device: Device
    ) -> "Prefetcher | None":
        """What fills the cache in the background, if both halves of the configuration want it."""
        assert request.config.cache is not None
        assert request.config.rafs is not None
        work, wish = request.config.cache.prefetch, request.config.rafs.prefetch
        if not (work.enable and wish.enable):
            return None
        from nydusd.cache.prefetch import Prefetcher  # few mounts ask for it
        from nydusd.rafs.chunk_records import places_of_blob

        paths = [os.fsencode(path) for path in request.prefetch_files]
        everything = wants_everything(bootstrap, paths, prefetch_all=wish.prefetch_all)
        spans = spans_to_prefetch(bootstrap, paths)
        if everything and bootstrap.version == 5:  # without a CI array: by way of the files
            spans = chain(spans, spans_to_prefetch(bootstrap, [b"/"]))
        return Prefetcher(
            device, work, spans, everything=everything, places=partial(places_of_blob, bootstrap)
        )

    def umount(self, mountpoint: str, timeout: float | None = None) -> bool:
        """Take *mountpoint* away; `NotMounted` when nothing is mounted at exactly that path.

        Waits for the requests inside, at most *timeout* seconds. False: some are still inside, and
        `tidy` closes what they use when they have ended.
        """
        mountpoint = normal_mountpoint(mountpoint)
        with self._lock:
            is_idle = self._umount(mountpoint, timeout)
            logger.info("filesystem unmounted from %s", mountpoint)
            if is_idle:
                self.tidy()
            return is_idle

    def _umount(self, mountpoint: str, timeout: float | None) -> bool:
        mounts = dict(self._mounts)
        mount = mounts.pop(mountpoint, None)
        if mount is None:
            raise NotMounted(f"{mountpoint} is not mounted")
        self._stop_prefetch(mount.parts)
        self._mounts = mounts
        is_idle = self._vfs.umount(mountpoint, timeout, lambda: self._give_up(mount.parts))
        self._forget_names(mountpoint, mount.parts)
        return is_idle

    def _forget_names(self, mountpoint: str, parts: Parts | HostParts) -> None:
        """Have the kernel look again for the names of what is, or was, the root.

        Those that it knows lead to the old image, and those of the new one it may know not to be.
        """
        if mountpoint != "/":
            return  # the name it is mounted by has been forgotten with all below
        try:
            self._vfs.forget_root_names(root_names(parts))
        except OSError as exc:  # a broken image has told all the names that it has
            logger.info("the root of a mount cannot be listed: %s", exc)

    def _stop_prefetch(self, parts: Parts | HostParts) -> None:
        if parts.prefetcher is not None:
            parts.prefetcher.stop()

    def _give_up(self, parts: Parts | HostParts) -> None:
        self._gone.append((parts, time.monotonic()))

    def tidy(self) -> bool:
        """Close what unmounted images used and nobody uses any more; whether some is left."""
        busy = self._vfs.collect()
        for row in list(self._gone):
            parts, since = row
            waits = parts.prefetcher is not None and not parts.prefetcher.wait(0)
            if waits and time.monotonic() - since < PREFETCH_SECONDS:
                continue
            self._gone.remove(row)
            parts.undo.close()
        return busy > 0 or bool(self._gone)

    def note_request(self, mountpoint: str, request: MountRequest) -> None:
        """Let *request* stand for what is mounted at *mountpoint*, if anything still is."""
        with self._lock:
            mount = self._mounts.get(mountpoint)
            if mount is not None:
                text = mount_text(mountpoint, request, mount.mounted_ns)
                noted = mount._replace(request=request, text=text)
                self._mounts = {**self._mounts, mountpoint: noted}

    def list(self) -> dict[str, Mount]:
        """Mounts by their path, at this moment; waits for nobody, not to be changed."""
        return self._mounts

    def close(self, timeout: float | None = None) -> None:
        """Umount everything; a backend that does not answer delays it by *timeout* in all."""
        deadline = None if timeout is None else time.monotonic() + timeout
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout + LOCK_SECONDS):
            logger.warning("a mount that is being made is given up")
            return
        try:
            for mountpoint in self._mounts:
                self._umount(mountpoint, 0)
            while self.tidy():
                if deadline is not None and time.monotonic() >= deadline:
                    logger.warning("reads still wait for the backend, they are given up")
                    return
                time.sleep(LOOK_SECONDS)
        finally:
            self._lock.release()
