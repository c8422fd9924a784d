"""What both readers of tables demand of a bootstrap: fields as they must be, areas apart."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from nydusd.base.errors import BootstrapError
from nydusd.base.record import NamedTuple

INFLATED_BYTES_FREE = 64 << 20
INFLATION_MAX = 256  # real tables shrink to a tenth, mostly empty ones to a hundredth
FAULTS_MAX = 1000  # a table of noise has several at every row

_T = TypeVar("_T")


class Area(NamedTuple):
    """One table of a bootstrap."""

    name: str
    offset: int  # bytes
    size: int  # bytes; 0 = there is no such table


class Demands:
    """What must hold of the tables of a bootstrap of *kind*.

    The first fault is raised, for a mount; or, with *keep*, all are kept in `faults`, for the
    checker: the one after `FAULTS_MAX` is raised then, and so is one that hides all others.
    """

    __slots__ = ("_keep", "faults", "kind")

    def __init__(self, kind: str, *, keep: bool = False) -> None:
        """Nothing is wrong yet."""
        self.kind = kind
        self.faults: list[str] = []
        self._keep = keep

    def must(self, holds: object, what: str) -> None:
        """`BootstrapError` that says *what* is wrong, unless *holds*: the rest cannot be read."""
        if not holds:
            raise self._error(what)

    def check(self, holds: object, what: str) -> bool:
        """Whether it *holds*; a fault that says *what* is wrong if not."""
        if not holds:
            self.fault(self._error(what))
        return bool(holds)

    def attempt(self, function: Callable[..., _T], *args: object) -> _T | None:
        """What *function* gives; None when its `BootstrapError` has become a fault."""
        try:
            return function(*args)
        except BootstrapError as error:
            self.fault(error)
            return None

    def fault(self, error: BootstrapError) -> None:
        """Raise *error*, or keep what it says."""
        if not self._keep or len(self.faults) == FAULTS_MAX:
            raise error
        self.faults.append(str(error))

    @classmethod
    def all_faults(cls, kind: str, read: Callable[[Demands], object]) -> list[str]:
        """A line for each demand on a bootstrap of *kind* that *read* finds not to hold."""
        demands = cls(kind, keep=True)
        try:
            read(demands)
        except BootstrapError as error:
            demands.faults.append(str(error))
        return demands.faults

    def _error(self, what: str) -> BootstrapError:
        return BootstrapError(
            f"{self.kind} bootstrap: {what}: the file is corrupt, cut or of an unknown kind, "
            "get or build it again"
        )


def check_areas(demands: Demands, areas: Iterable[Area], first: int, file_size: int) -> None:
    """A fault for each of *areas* that is not in [*first*, *file_size*), or on another one."""
    kind = demands.kind
    end = first
    before = "superblock"
    for area in sorted((area for area in areas if area.size), key=lambda area: area.offset):
        if area.offset < end:
            demands.fault(
                BootstrapError(
                    f"{kind} bootstrap: {area.name} at {area.offset} overlaps the {before}, which "
                    f"ends at {end}: the file is corrupt, get or build it again"
                )
            )
        if area.offset + area.size > file_size:
            demands.fault(
                BootstrapError(
                    f"{kind} bootstrap: {area.name} ends at {area.offset + area.size}, the file "
                    f"at {file_size}: it is cut or corrupt, get or build it again"
                )
            )
        if area.offset + area.size > end:
            end = area.offset + area.size
            before = area.name


def inflates_too_much(plain_size: int, stored_size: int) -> bool:
    """Whether no table of *plain_size* bytes would be stored in as few as *stored_size*.

    What claims so is no table but an attempt on the memory: it is needed before the first byte is
    seen. Small ones are let through.
    """
    return plain_size > INFLATED_BYTES_FREE and plain_size > INFLATION_MAX * stored_size
