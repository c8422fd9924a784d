"""What stands behind an object of the kernel's cache; made by the daemon, served by the carrier."""

from collections.abc import Callable
from pathlib import Path

from nydusd.base.record import NamedTuple
from nydusd.cache.device import Device


class BootstrapSource(NamedTuple):
    """A bootstrap: its file as it is."""

    path: Path


class Filling(NamedTuple):
    """How a data blob is filled while nobody asks."""

    threads: int
    step_bytes: int
    bandwidth_limit: int  # bytes/s; 0 = none


class DataSource(NamedTuple):
    """A data blob: plain bytes of its chunks, got when they are asked for.

    *open* makes a device in which that one blob is open; it may fail, and is tried again then.
    """

    blob_id: str
    blob_index: int
    size: int  # of the plain blob
    open: Callable[[], Device]  # `NydusError`, `OSError`
    filling: Filling | None = None


Source = BootstrapSource | DataSource
Find = Callable[[str, str], Source | None]  # by domain and blob id
