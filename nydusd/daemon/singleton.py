"""The singleton daemon: no mount, but blobs that are added through the API, served to the kernel.

With a cache directory it answers the kernel's cachefiles (`fscache`), so that EROFS mounts of the
images that were added read on demand. Without one it keeps the list of blobs and answers the API.
It has the face of `Daemon` for the API; what needs a mount is refused as not supported.
"""

from __future__ import annotations

import logging
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from nydusd.cache.metered import metered_opener
from nydusd.cache.pool import BlobPool
from nydusd.daemon.blob_sources import find_source
from nydusd.daemon.blobs import BlobTable, add_all, checked_name
from nydusd.daemon.daemon import SHOWN_STATES, Daemon, serve_until_end
from nydusd.daemon.errors import NotSupported
from nydusd.daemon.events import Events
from nydusd.daemon.mounts import Mount, Mounts
from nydusd.daemon.process import EndRequest
from nydusd.daemon.runtime_settings import RuntimeSettings
from nydusd.daemon.state import Event, State, StateMachine
from nydusd.fs.vfs import Vfs

if TYPE_CHECKING:
    from nydusd.daemon.daemon import Transfers
    from nydusd.daemon.mount_request import MountRequest
    from nydusd.daemon.settings import SingletonSettings
    from nydusd.fscache.device import CacheDevice
    from nydusd.fscache.server import CacheServer

logger = logging.getLogger("nydusd")

NO_FILE_SYSTEM = "a singleton daemon mounts no file systems"


class Singleton:
    """A daemon as *settings* ask for it; see `Daemon` for who calls what."""

    session = None  # there is no FUSE connection
    has_left = False  # nor anything that is left to a successor

    def __init__(self, settings: SingletonSettings, end: EndRequest) -> None:
        self.settings = settings
        self.machine = StateMachine()
        self.events = Events()
        self.pool = BlobPool(metered_opener(self.events.record))
        self.blobs = BlobTable()
        self.mounts = Mounts(Vfs(), self.pool, start_time=time.time())  # stays empty
        self.runtime_settings = RuntimeSettings(self.mounts)
        self.upgrade: Transfers | None = None
        self.server: CacheServer | None = None  # set once, before it is started
        self._end = end

    @property
    def shown_state(self) -> str:
        """INIT, READY, RUNNING or STOPPED."""
        return SHOWN_STATES[self.machine.state]

    def start(self) -> None:
        """Know the blobs of the settings, and serve them unless a session is waited for."""
        add_all(self.blobs, self.settings.entries)
        if self.settings.waits:
            return
        self.machine.fire(Event.MOUNT, self._bind)
        self.start_service()
        logger.info("Singleton daemon started!")

    def _bind(self) -> None:
        """Become the one that the kernel's cache asks, if the settings say so; `OSError`."""
        folder = self.settings.fscache
        if folder is None:
            return
        from nydusd.fscache.device import CacheDevice, open_device

        device = CacheDevice(open_device())
        try:
            device.bind(folder, self.settings.fscache_tag)
        except BaseException:
            device.close()
            raise
        logger.info(
            "Create fscache instance at %s with tag %s, %d working threads",
            folder, self.settings.fscache_tag or "<none>", self.settings.fscache_threads,
        )  # fmt: skip
        self.serve_on(device, folder, self.settings.fscache_threads)

    def serve_on(self, device: CacheDevice, folder: str, threads: int) -> None:
        """Have the kernel's cache, bound to *folder*, served from `start_service` on."""
        from nydusd.fscache.server import CacheServer

        self.server = CacheServer(
            device,
            Path(folder),
            partial(find_source, self.blobs, self.pool),
            threads,
            lambda: self._end.ask("the kernel's cache is gone"),
        )

    # --- what the API asks for, on the control thread

    def mount(self, _request: MountRequest) -> Mount:
        """Not with this kind of daemon."""
        self._no_file_system()

    def remount(self, _request: MountRequest) -> Mount:
        """Not with this kind of daemon."""
        self._no_file_system()

    def umount(self, _mountpoint: str) -> None:
        """Not with this kind of daemon."""
        self._no_file_system()

    def _no_file_system(self) -> NoReturn:
        raise NotSupported(NO_FILE_SYSTEM)

    def start_service(self) -> None:
        """Answer the kernel, if there is anything to."""
        self.machine.fire(Event.START, self.server.start if self.server else lambda: None)

    def send(self) -> None:
        """Give state and session to the supervisor."""
        self._transfers().send()

    def take_over(self) -> None:
        """Become what the supervisor's state says."""
        self.machine.fire(Event.TAKEOVER, lambda: self._transfers().take_over())

    def _transfers(self) -> Transfers:
        if self.upgrade is None:
            raise NotSupported("this daemon hands nothing over")
        return self.upgrade

    def cull(self, blob_id: str) -> None:
        """Have the kernel drop what it has of blob *blob_id*; `NotSupported` without its cache.

        `OSError` when somebody uses it.
        """
        if self.server is None:
            raise NotSupported(f"blob {blob_id}: there is no kernel cache here (--fscache)")
        checked_name("blob_id", blob_id)
        self.server.drop(blob_id)

    def leave(self) -> None:
        """End."""
        self._end.ask("exit was asked for")

    # --- the end

    def stop(self) -> None:
        """Answer the kernel no more."""
        if self.machine.state is State.RUNNING:
            self.machine.fire(Event.STOP)
        self.machine.fire(Event.STOP, self.server.stop if self.server else lambda: None)


AnyDaemon = Daemon | Singleton


def run(settings: SingletonSettings) -> int:
    """Serve without a control socket until a signal; the exit status."""
    end = EndRequest()
    end.install()
    return serve_until_end(Singleton(settings, end), end)
