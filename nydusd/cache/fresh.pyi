from typing import Self, final

@final
class FreshChunks:
    def __new__(cls, fd: int) -> Self: ...
