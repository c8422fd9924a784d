"""The kernel session: llfuse owns it, its workers run the loop, our channel carries the requests.

One session at a time in a process, as llfuse has it. `start` and `stop` are called by the daemon;
a thread of the session sees its end, whoever brought it about, and takes down what is left.
"""

import contextlib
import errno
import importlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from nydusd.base.errors import MountError
from nydusd.base.record import NamedTuple
from nydusd.fs.vfs import Vfs
from nydusd.fuse import channel, mount
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.drain import drain
from nydusd.fuse.permits import Permits
from nydusd.fuse.server import Server

logger = logging.getLogger("nydusd")

FUSE_READ = 15  # the opcode
NEGOTIATION_SECONDS = 10.0
STOP_SECONDS = 5.0
# A fetch that ends within it is answered with data, also when the daemon is asked to go.
DRAIN_SECONDS = 1.0
FETCH_THREADS = 64


def load_llfuse() -> ModuleType:
    """llfuse, bound to our channel; `MountError` when that cannot be."""
    if "llfuse" not in sys.modules:
        channel.expose()
    elif not channel.is_exposed():
        raise MountError(
            "llfuse was imported before the daemon's channel was there: it would mount by itself"
        )
    return importlib.import_module("llfuse")


def begin(llfuse: ModuleType, mountpoint: Path) -> None:
    """Let llfuse make its session; `MountError` when it does so without our channel."""
    llfuse.init(llfuse.Operations(), str(mountpoint), {"no_splice_read", "no_splice_write"})
    if not channel.is_bound():
        llfuse.close(unmount=True)
        raise MountError(
            f"llfuse does not use the daemon's channel over {channel.libfuse_path()}: it brings "
            "a libfuse of its own; build llfuse against the system's"
        )


class Inherited(NamedTuple):
    """A session that another process has mounted and negotiated."""

    fd: int  # open /dev/fuse, owned by the new session from its `prepare` on
    offered: int  # flags of the kernel in FUSE_INIT
    accepted: int
    drain: str  # what to do with requests it took and did not answer, see `fuse.drain`
    connection: int = -1  # its number; -1 = not known


class Session:
    """A mountpoint served to the kernel; one at a time in a process.

    *zero_message_open* tells the kernel never to ask for OPEN (one image given at start).
    *supervised*: somebody else holds the descriptor too, and looks at the mountpoint when this
    process has died; see `Refresher`. With *inherited* nothing is mounted, and `prepare` comes
    before `start`. *on_end* is called once, in the session's thread, when it has ended by itself or
    by `stop`, after the mount is gone.
    """

    def __init__(
        self,
        vfs: Vfs,
        mountpoint: str | Path,
        *,
        threads: int = 4,
        writable: bool = False,
        zero_message_open: bool = False,
        supervised: bool = False,
        inherited: Inherited | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._vfs = vfs
        self._mountpoint = Path(mountpoint)
        self._threads = threads
        self._writable = writable
        self._fd = -1 if inherited is None else inherited.fd
        self._inherited = inherited
        self._on_end = on_end
        self._device = -1 if inherited is None else inherited.connection
        self._unmounts = True
        self._deferred = DeferredReads(vfs, FETCH_THREADS)
        self._server = Server(
            vfs, self._deferred, zero_message_open=zero_message_open, permits=Permits(threads)
        )
        if inherited is not None:
            self._server.adopt(inherited.offered, inherited.accepted)
        self._refresher = Refresher(self._mountpoint) if supervised else None
        self._silence = threading.Lock()  # held while the session falls silent
        self._is_silent = False  # guarded by self._silence
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def prepare(self) -> None:
        """Have all ready to serve the inherited descriptor; `MountError`, and nothing is changed.

        Readers wait while one process follows the other, and not yet now. Nothing is read, and
        nobody is disturbed who still serves the mount.
        """
        self._mountpoint = self._mountpoint.absolute()
        try:
            os.set_inheritable(self._fd, False)
            self._look_up_device()
            self._begin(load_llfuse(), held=True)
        except BaseException:
            os.close(self._fd)
            self._fd = -1
            raise

    def start(self) -> None:
        """Mount, or go on with the inherited descriptor, and serve; `MountError` when that fails.

        When it returns the kernel has agreed with us and the mount can be used.
        """
        if self._inherited is not None:
            os.set_blocking(self._fd, True)  # the reference waits with epoll
            drain(self._inherited.drain, self._device)
            channel.release()
        else:
            llfuse = load_llfuse()
            self._mount()
            try:
                self._begin(llfuse)
            except BaseException:
                self._close()
                raise
            self._await_negotiation()
        self._vfs.on_change(self._changed)
        self._refresh()

    def _mount(self) -> None:
        """Get a descriptor, and the connection's number."""
        self._mountpoint = mount.check_mountpoint(self._mountpoint)
        self._fd = mount.mount_fuse(self._mountpoint, writable=self._writable)
        logger.info("mount source %s dest %s fd %d", mount.SOURCE, self._mountpoint, self._fd)
        try:
            self._look_up_device()
        except BaseException:  # no descriptor is left for the mount table
            mount.detach(self._mountpoint)  # what was mounted a moment ago
            self._close()
            raise

    def _look_up_device(self) -> None:
        device = mount.device_at(self._mountpoint)
        self._device = -1 if device is None else device

    def _begin(self, llfuse: ModuleType, *, held: bool = False) -> None:
        """Start the threads; *held*: they read nothing before they are released."""
        channel.open_session(self._fd, self._server, held=held)
        begin(llfuse, self._mountpoint)
        thread = threading.Thread(
            target=self._run, args=(llfuse,), name="fuse_session", daemon=True
        )
        try:
            self._deferred.start()
            thread.start()
        except BaseException:  # as many threads as there may be
            self._deferred.stop(-errno.ENOTCONN, 0.0)
            llfuse.close(unmount=False)
            raise
        self._thread = thread

    def _changed(self, parent: int, name: bytes | None) -> None:
        """Let the kernel look again; see `Vfs.on_change`."""
        invalidate(parent, name)
        self._refresh()

    def _refresh(self) -> None:
        if self._refresher is not None:
            self._refresher.ask()

    def _await_negotiation(self) -> None:
        deadline = time.monotonic() + NEGOTIATION_SECONDS
        while self._server.negotiation is None:
            if self._ended.is_set() or time.monotonic() >= deadline:
                self.stop()
                raise MountError(
                    f"{self._mountpoint}: the kernel did not start the FUSE connection"
                    + (f": {self._error}" if self._error else "")
                )
            time.sleep(0.0005)
        minor, offered, accepted = self._server.negotiation
        logger.info(
            "FUSE INIT major 7 minor %d in_opts: %#x out_opts: %#x", minor, offered, accepted
        )

    def _run(self, llfuse: ModuleType) -> None:
        """Serve until the end, then take down what is left; the session thread's whole life."""
        try:
            llfuse.main(workers=self._threads, handle_signals=False)
        except BaseException as exc:
            self._error = exc
            logger.exception("the FUSE session ended with an error")
        finally:
            self._take_down(llfuse)

    def _take_down(self, llfuse: ModuleType) -> None:
        code = channel.end_code()
        if code not in (0, errno.ENODEV, errno.ECONNABORTED):
            logger.error("reading /dev/fuse: %s", os.strerror(code))
        elif code:
            logger.info("FUSE connection of %s ended by the kernel", self._mountpoint)
        try:
            self._fall_silent()
            channel.stop_workers(STOP_SECONDS)  # those that had hardly begun by then
            llfuse.close(unmount=False)
        finally:
            self._close()
            self._ended.set()
            if self._on_end is not None:
                self._on_end()

    def _fall_silent(self) -> None:
        """Read no more; answer what has been read, or leave it to a successor after a while."""
        with self._silence:
            if self._is_silent:
                return
            self._is_silent = True
            channel.stop_workers(STOP_SECONDS)
            self._vfs.on_change(None)
            drain_seconds = 0.0 if channel.end_code() else DRAIN_SECONDS
            if self._unmounts:
                self._deferred.stop(-errno.ENOTCONN, drain_seconds)
                return
            # A successor has the kernel send again what is left. Readers wait for it, and not for
            # the end of our threads.
            self._deferred.stop(0, drain_seconds, join=0.0)
            os.set_blocking(self._fd, False)  # as a successor of the other kind needs it

    def _detach(self) -> None:
        """Take the mount away, if it is still ours and not to be left."""
        if not self._unmounts or self._device < 0:
            return
        try:
            mount.unmount(self._mountpoint, self._device)
        except (OSError, MountError) as exc:
            logger.error("umount of %s: %s", self._mountpoint, exc)  # noqa: TRY400

    def _close(self) -> None:
        """Take the mount away and close the descriptor."""
        self._detach()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the session has ended, after at most *timeout* seconds."""
        return self._ended.wait(timeout)

    def stop(self, *, unmount: bool = True) -> None:
        """End serving in bounded time; with *unmount* false the kernel mount stays.

        Requests being served are answered. A mount that stays may be served by somebody else when
        it returns, while the threads here are still about to end. Not to be called from `on_end`.
        """
        if self._ended.is_set():
            return
        self._unmounts = unmount
        if self._thread is None:  # never started: only what was inherited is there to be ended
            self._close()
            return
        self._detach()
        self._fall_silent()
        if unmount and not self._ended.wait(2 * STOP_SECONDS):
            logger.error("the FUSE session of %s does not end", self._mountpoint)

    @property
    def fd(self) -> int:
        """The open /dev/fuse descriptor, to be handed to a supervisor; borrowed."""
        return self._fd

    @property
    def connection_id(self) -> int:
        """The number of the connection in /sys/fs/fuse/connections; -1 when it is not known."""
        return self._device

    def in_flight(self) -> list[tuple[int, int, int, int]]:
        """(node id, opcode, unique, seconds since the epoch) of every request not answered yet."""
        waiting = [
            (node_id, FUSE_READ, unique, since)
            for node_id, unique, since in self._deferred.in_flight()
        ]
        return waiting + channel.in_flight()

    @property
    def negotiation(self) -> tuple[int, int, int] | None:
        """(minor of the kernel, flags it offered, flags accepted); None before FUSE_INIT."""
        return self._server.negotiation

    @property
    def waiting_reads(self) -> int:
        """How many reads wait for data."""
        return self._deferred.waiting


class Refresher:
    """Has the kernel know the attributes of *mountpoint*'s root, always.

    A supervisor looks at the mountpoint of a daemon that has died before it starts the next one. If
    the kernel had to ask for the attributes then, it would wait for the daemon that it is to start;
    it keeps those that it has for good, but drops them when a name in the root is invalidated. The
    look is taken by a thread of its own, which may wait as long as the daemon does. When the
    process is killed right then the thread waits for its answer, and keeps the descriptor open:
    only where a successor will answer, or everybody else would wait with it.
    """

    def __init__(self, mountpoint: Path) -> None:
        self._mountpoint = mountpoint
        self._lock = threading.Lock()
        self._is_wanted = False  # guarded by self._lock
        self._is_looking = False  # guarded by self._lock

    def ask(self) -> None:
        """Look soon, after all that has happened so far."""
        with self._lock:
            self._is_wanted = True
            if self._is_looking:
                return
            self._is_looking = True
        threading.Thread(target=self._run, name="fuse_refresh", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_wanted:
                    self._is_looking = False
                    return
                self._is_wanted = False
            with contextlib.suppress(OSError):
                self._mountpoint.stat()


def invalidate(parent: int, name: bytes | None) -> None:
    """Let the kernel look again for *name*, or at the root itself; see `Vfs.on_change`."""
    if name is None:
        channel.invalidate_inode(parent)
    else:
        channel.invalidate_entry(parent, name)
