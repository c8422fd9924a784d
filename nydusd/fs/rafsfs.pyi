from collections.abc import Callable
from typing import Self, final

from nydusd.cache.device import Device
from nydusd.fs.filesystem import Filesystem
from nydusd.fs.stats import FsStats
from nydusd.rafs.bootstrap import Bootstrap

@final
class RafsFs(Filesystem):
    def __new__(
        cls,
        bootstrap: Bootstrap,
        device: Device,
        *,
        start_time: float,
        enable_xattr: bool = False,
        batch_size: int = 0,
        stats: FsStats | None = None,
        trace: Callable[[int, int, int], Callable[[int], None]] | None = None,
    ) -> Self: ...
