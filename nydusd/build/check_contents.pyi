from collections.abc import Callable
from typing import Self, final

from nydusd.build.check_chunks import MetChunks
from nydusd.build.check_trail import Trail
from nydusd.rafs.bootstrap import Bootstrap

@final
class ContentsCheck:
    def __new__(
        cls,
        bootstrap: Bootstrap,
        chunks: MetChunks,
        trail: Trail,
        tell: Callable[[str], None] | None = None,
    ) -> Self: ...
