from collections.abc import Callable
from typing import Final, Protocol, Self, final

from nydusd.build.check_chunks import MetChunks
from nydusd.rafs.bootstrap import Bootstrap

DEPTH_MAX: Final = 4096
PATH_SHOWN_MAX: Final = 1024

class _Report(Protocol):
    @property
    def full(self) -> bool: ...
    def add(self, where: bytes, what: object) -> None: ...

@final
class TreeCheck:
    chunks: MetChunks
    names: int
    inodes: int
    def __new__(
        cls, bootstrap: Bootstrap, report: _Report, tell: Callable[[str], None] | None = None
    ) -> Self: ...
    def run(self) -> None: ...
