"""One daemon from start to end: builds the parts, starts them, stops them; no logic of its own.

The main thread runs `run`; everything else happens in the threads of the parts (see
docs/concurrency.md).
"""

import gc
import logging
import time
from functools import partial

from nydusd.base.errors import MountError
from nydusd.cache.pool import BlobPool
from nydusd.daemon.mounts import MountKind, MountRequest, Mounts
from nydusd.daemon.process import EndRequest
from nydusd.daemon.settings import Settings
from nydusd.daemon.state import Event, StateMachine
from nydusd.fs.vfs import Vfs
from nydusd.fuse.llfuse_session import Session

logger = logging.getLogger("nydusd")

CLOSE_SECONDS = 1.0  # for fetches that outlived the session's own wait


class Daemon:
    """A FUSE daemon as *settings* ask for it."""

    def __init__(self, settings: Settings, end: EndRequest) -> None:
        self._settings = settings
        self._end = end
        self._machine = StateMachine()
        self._vfs = Vfs()
        self._pool = BlobPool()
        self._mounts = Mounts(self._vfs, self._pool, start_time=time.time())
        self._session = Session(
            self._vfs,
            settings.mountpoint,
            threads=settings.threads,
            writable=settings.writable,
            # With one image for life nothing depends on OPEN reaching the daemon; with mounts
            # that come and go it must (spec of the mount table: handles of several kinds).
            zero_message_open=settings.bootstrap is not None,
            on_end=lambda: end.ask("the FUSE connection is gone"),
        )

    def start(self) -> None:
        """Mount what the command line asks for and serve it; what fails is undone."""
        try:
            self._mount_image()
            self._machine.fire(Event.MOUNT, self._session.start)
        except BaseException:
            self._mounts.close()
            raise
        self._machine.fire(Event.START)
        logger.info("Fuse daemon started!")

    def _mount_image(self) -> None:
        settings = self._settings
        if settings.bootstrap is None:
            return
        if settings.config is None:
            raise MountError("both --config and --localfs-dir are missing")
        self._mounts.mount(
            MountRequest(
                kind=MountKind.RAFS,
                source=settings.bootstrap,
                config=settings.config,
                mountpoint=settings.virtual_mountpoint,
                prefetch_files=settings.prefetch_files,
            )
        )

    def stop(self) -> None:
        """Leave the kernel mount, then close every mount of the tree."""
        self._machine.fire(Event.STOP, self._session.stop)
        # A backend that hangs must not keep the process from ending.
        self._machine.fire(Event.STOP, partial(self._mounts.close, CLOSE_SECONDS))


def run(settings: Settings) -> int:
    """Serve until a signal, or until the mount is gone; the exit status."""
    end = EndRequest()
    end.install()
    daemon = Daemon(settings, end)
    daemon.start()
    gc.freeze()
    gc.enable()
    try:
        reason = end.wait()
        logger.info("nydusd quits: %s", reason)
    finally:
        daemon.stop()
    return 0
