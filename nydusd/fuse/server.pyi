from typing import Self, final

from typing_extensions import Buffer

from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.permits import Permits

@final
class Server:
    def __new__(
        cls,
        vfs: Vfs,
        deferred: DeferredReads,
        *,
        zero_message_open: bool = False,
        permits: Permits | None = None,
    ) -> Self: ...
    def serve_bytes(self, request: Buffer, fd: int) -> None: ...
    def adopt(self, offered: int, accepted: int) -> None: ...
    @property
    def negotiation(self) -> tuple[int, int, int] | None: ...
