from collections.abc import Callable
from typing import Final, Self, final

from nydusd.build.check_chunks import MetChunks
from nydusd.build.check_trail import Report
from nydusd.rafs.bootstrap import Bootstrap

DEPTH_MAX: Final = 4096

@final
class TreeCheck:
    chunks: MetChunks
    names: int
    inodes: int
    def __new__(
        cls, bootstrap: Bootstrap, report: Report, tell: Callable[[str], None] | None = None
    ) -> Self: ...
    def run(self) -> None: ...
