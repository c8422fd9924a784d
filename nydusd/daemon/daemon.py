"""One daemon from start to end: builds the parts, starts them, stops them; no logic of its own.

The main thread runs `run`, or the API's server in its place; everything else happens in the threads
of the parts (see docs/concurrency.md).
"""

import gc
import logging
import os
import time
from functools import partial
from typing import Protocol

from nydusd.base.errors import MountError
from nydusd.cache.metered import metered_opener
from nydusd.cache.pool import BlobPool
from nydusd.cache.syncer import SYNCER
from nydusd.config.model import Config
from nydusd.daemon.errors import NotSupported
from nydusd.daemon.events import Events
from nydusd.daemon.mount_request import MountKind, MountRequest, normal_mountpoint
from nydusd.daemon.mounts import Mount, Mounts
from nydusd.daemon.process import EndRequest
from nydusd.daemon.runtime_settings import RuntimeSettings
from nydusd.daemon.service_manager import tell, watchdog_seconds
from nydusd.daemon.settings import Settings
from nydusd.daemon.state import Event, State, StateMachine
from nydusd.fs.vfs import Vfs
from nydusd.fuse.llfuse_session import Inherited, Session

logger = logging.getLogger("nydusd")

CLOSE_SECONDS = 1.0  # for fetches that outlived the session's own wait
# What clients are told (spec: http-api, state machine).
SHOWN_STATES = {
    State.INIT: "INIT",
    State.READY: "READY",
    State.RUNNING: "RUNNING",
    State.DIE: "STOPPED",
}


class Transfers(Protocol):
    """How session and mounts go to another process, and come from one."""

    def send(self) -> None:
        """Give state and session to the supervisor."""

    def take_over(self) -> None:
        """Become what the supervisor's state says."""


class Daemon:
    """A FUSE daemon as *settings* ask for it."""

    blobs = None  # it serves file systems

    def __init__(self, settings: Settings, end: EndRequest) -> None:
        self.settings = settings
        self.machine = StateMachine()
        self.vfs = Vfs()
        self.events = Events()
        self.pool = BlobPool(metered_opener(self.events.record))
        self.mounts = Mounts(
            self.vfs,
            self.pool,
            start_time=time.time(),
            own_device=self._own_device,
            writable=settings.writable,
        )
        self.upgrade: Transfers | None = None
        self.restored: set[str] = set()  # mountpoints taken over; guarded by the control thread
        self.runtime_settings = RuntimeSettings(self.mounts)
        self._end = end
        self._leaves_mount = False
        # With one image for life nothing depends on OPEN reaching the daemon; with mounts that come
        # and go, and files that can be written, it must (handles of several kinds).
        has_overlay = settings.config is not None and settings.config.overlay is not None
        self.session = self.make_session(
            zero_message_open=settings.bootstrap is not None and not has_overlay
        )

    def make_session(
        self, *, zero_message_open: bool = False, inherited: Inherited | None = None
    ) -> Session:
        """A session on the mountpoint, not started; see `Session`."""
        return Session(
            self.vfs,
            self.settings.mountpoint,
            threads=self.settings.threads,
            writable=self.settings.writable,
            zero_message_open=zero_message_open,
            supervised=self.settings.supervisor is not None,
            inherited=inherited,
            on_end=self._session_ended,
        )

    def _own_device(self) -> int:
        """The device number of what the kernel has mounted; -1 while that is not known."""
        connection = self.session.connection_id
        return -1 if connection < 0 else os.makedev(0, connection)

    def _session_ended(self) -> None:
        if not self._leaves_mount:  # else whoever asked for it ends the process, after its answer
            self._end.ask("the FUSE connection is gone")

    def inherit(self, inherited: Inherited) -> None:
        """Have a session of another process ready, and served from `start_service` on."""
        session = self.make_session(inherited=inherited)
        session.prepare()
        self.session = session

    @property
    def shown_state(self) -> str:
        """INIT, READY, RUNNING or STOPPED."""
        return SHOWN_STATES[self.machine.state]

    def start(self) -> None:
        """Mount what the command line asks for and serve it; what fails is undone."""
        try:
            self._mount_first()
            self.machine.fire(Event.MOUNT, self.session.start)
        except BaseException:
            self.mounts.close()
            raise
        self.machine.fire(Event.START)
        logger.info("Fuse daemon started!")

    def _mount_first(self) -> None:
        """Mount what the command line names."""
        settings = self.settings
        if settings.shared_dir is not None:
            self.mounts.mount(
                MountRequest(
                    kind=MountKind.PASSTHROUGH,
                    source=settings.shared_dir,
                    config=Config(),
                    mountpoint=settings.virtual_mountpoint,
                )
            )
        if settings.bootstrap is None:
            return
        if settings.config is None:
            raise MountError("both --config and --localfs-dir are missing")
        self.mounts.mount(
            MountRequest(
                kind=MountKind.RAFS,
                source=settings.bootstrap,
                config=settings.config,
                mountpoint=settings.virtual_mountpoint,
                prefetch_files=settings.prefetch_files,
                config_text=settings.config_text,
            )
        )

    # --- what the API asks for, on the control thread

    def mount(self, request: MountRequest) -> Mount:
        """Serve what *request* names.

        A mount that was taken over may be asked for again: a supervisor that restarts does so, and
        would give the daemon up. What is there already is the answer, if it is the same.
        """
        present = self.mounts.list().get(request.mountpoint)
        if present is None or request.mountpoint not in self.restored:
            return self.mounts.mount(request)
        # Compared as they are meant: the text may be written in another way.
        if present.request._replace(config_text="") == request._replace(config_text=""):
            logger.info("%s is mounted since the takeover", request.mountpoint)
            return present
        return self.mounts.mount(request)

    def remount(self, request: MountRequest) -> Mount:
        """Serve what *request* names in the place of what is mounted there."""
        return self.mounts.remount(request)

    def umount(self, mountpoint: str) -> None:
        """Take *mountpoint* away at once; who is inside keeps what it needs."""
        self.mounts.umount(mountpoint, 0)
        self.restored.discard(normal_mountpoint(mountpoint))

    def start_service(self) -> None:
        """Serve a session that was taken over."""
        self.machine.fire(Event.START, self.session.start)

    def send(self) -> None:
        """Give state and session to the supervisor."""
        self._transfers().send()

    def take_over(self) -> None:
        """Become what the supervisor's state says."""
        self.machine.fire(Event.TAKEOVER, self._transfers().take_over)

    def _transfers(self) -> Transfers:
        if self.upgrade is None:
            raise NotSupported("this daemon hands nothing over")
        return self.upgrade

    def leave(self) -> None:
        """End, and leave the kernel mount to a successor.

        When it returns nothing is read from the kernel any more: the successor may start. Readers
        wait from then on, and whoever starts it may wait for the end of this process before: what
        takes time is done while they are served.
        """
        self._leaves_mount = True
        if self.machine.state is State.RUNNING:
            SYNCER.rest()
            self.machine.fire(Event.STOP, self._stop_session)
        if self.machine.state is State.READY:
            self.machine.fire(Event.EXIT, self._stop_session)
        self._end.ask("exit was asked for")

    @property
    def has_left(self) -> bool:
        """Whether a successor waits for the end of the process, which closes what is open."""
        return self._leaves_mount and self.machine.state is State.DIE

    # --- the end

    def _stop_session(self) -> None:
        self.session.stop(unmount=not self._leaves_mount)

    def stop(self) -> None:
        """Leave the kernel mount, then close every mount of the tree."""
        if self.machine.state is State.RUNNING:
            self.machine.fire(Event.STOP, self._stop_session)
        else:
            self._stop_session()
        # A backend that hangs must not keep the process from ending.
        self.machine.fire(Event.STOP, partial(self.mounts.close, CLOSE_SECONDS))


def settle() -> None:
    """Let the garbage collector work, and pass over what the start has made."""
    gc.freeze()
    gc.enable()


def run(settings: Settings) -> int:
    """Serve until a signal, or until the mount is gone; the exit status."""
    end = EndRequest()
    end.install()
    return serve_until_end(Daemon(settings, end), end)


class Served(Protocol):
    """What can be started and stopped."""

    def start(self) -> None:
        """Serve."""

    def stop(self) -> None:
        """Serve no more."""


def serve_until_end(daemon: Served, end: EndRequest) -> int:
    """Serve without a control socket until *end* is asked for; the exit status."""
    daemon.start()
    settle()
    tell("READY=1")
    try:
        reason = end.wait(watchdog_seconds(), lambda: tell("WATCHDOG=1"))
        logger.info("nydusd quits: %s", reason)
    finally:
        tell("STOPPING=1")
        daemon.stop()
    return 0
