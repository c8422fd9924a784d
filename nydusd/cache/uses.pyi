from typing import Self, final

def stamp_now() -> int: ...

@final
class Uses:
    def __new__(cls, count: int) -> Self: ...
