"""The kernel session: llfuse owns it and runs the loop, our channel carries the requests."""

from collections.abc import Callable
from pathlib import Path

from nydusd.fs.vfs import Vfs


class Session:
    """A mountpoint served to the kernel; one at a time in a process.

    *zero_message_open* tells the kernel never to ask for OPEN (one image given at start).
    *inherited_fd* is a /dev/fuse descriptor another process mounted and negotiated: nothing is
    mounted then. *on_end* is called once, in the session's thread, when it has ended by itself
    or by `stop`, after the mount is gone.
    """

    def __init__(
        self,
        vfs: Vfs,
        mountpoint: str | Path,
        *,
        threads: int = 4,
        writable: bool = False,
        zero_message_open: bool = False,
        inherited_fd: int | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None: ...

    def start(self) -> None:
        """Mount (or adopt the inherited descriptor) and serve; `MountError`, `OSError`."""

    def wait(self, timeout: float | None = None) -> bool:
        """Whether the session has ended, after at most *timeout* seconds."""

    def stop(self, *, unmount: bool = True) -> None:
        """End serving in bounded time; the kernel mount stays with *unmount* false."""

    @property
    def fd(self) -> int:
        """The open /dev/fuse descriptor: to be handed to a supervisor, borrowed."""

    @property
    def connection_id(self) -> int:
        """The number of the connection in /sys/fs/fuse/connections."""
