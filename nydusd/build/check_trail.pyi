from typing import Final, Protocol, Self, final, type_check_only

PATH_SHOWN_MAX: Final = 1024

@type_check_only
class Report(Protocol):
    @property
    def full(self) -> bool: ...
    def add(self, where: bytes, what: object) -> None: ...

@final
class Trail:
    def __new__(cls, report: Report) -> Self: ...
