from typing import Self, final

from nydusd.cache.quota import Quota

def stamp_now() -> int: ...

@final
class Uses:
    room: Quota | None
    def __new__(cls, count: int, room: Quota | None = None) -> Self: ...
