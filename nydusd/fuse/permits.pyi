from typing import Self, final

@final
class Permits:
    spare: int
    def __new__(cls, workers: int, processors: int = 0) -> Self: ...
