from typing import Self, final

from typing_extensions import Buffer

@final
class Reply:
    complete: bool
    status: int
    headers: dict[str, str]
    refusal: str
    offset: int
    size: int
    received: int
    arrived: int
    def __new__(
        cls,
        buffer: Buffer | None,
        offset: int = 0,
        size: int = 0,
        ranged: bool = False,
        skip_max: int = 0,
    ) -> Self: ...
    @property
    def body(self) -> bytes: ...
    def detach(self) -> None: ...
    def take_header(self, line: bytes) -> None: ...
    def take_body(self, piece: bytes) -> int: ...
    def finish(self) -> None: ...
