"""A host directory as one mount of a daemon: what it is made of, and how that is opened."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from nydusd.base.record import NamedTuple
from nydusd.daemon.errors import HostDirectoryUnusable

if TYPE_CHECKING:
    from nydusd.fs.passthrough import PassthroughFs


class HostParts(NamedTuple):
    """What one mounted host directory is made of."""

    filesystem: "PassthroughFs"
    undo: ExitStack  # closes it
    prefetcher: None = None  # there is nothing to fetch


def open_host_directory(
    source: str, undo: ExitStack, *, own_device: Callable[[], int], recovers: bool
) -> HostParts:
    """The directory *source*, which *undo* closes; `HostDirectoryUnusable`."""
    from nydusd.fs.passthrough import PassthroughFs  # most daemons have images alone

    try:
        filesystem = PassthroughFs(source, own_device=own_device, recovers=recovers)
    except OSError as exc:
        raise HostDirectoryUnusable(source, exc) from exc
    undo.callback(filesystem.close)
    closes = ExitStack()
    closes.callback(filesystem.close)
    return HostParts(filesystem, closes)
