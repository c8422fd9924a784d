"""What both readers of tables demand of a bootstrap: fields as they must be, areas apart."""

from collections.abc import Iterable
from typing import NamedTuple

from nydusd.base.errors import BootstrapError

INFLATED_BYTES_FREE = 64 << 20
INFLATION_MAX = 256  # real tables shrink to a tenth, mostly empty ones to a hundredth


class Area(NamedTuple):
    """One table of a bootstrap."""

    name: str
    offset: int  # bytes
    size: int  # bytes; 0 = there is no such table


def demand(kind: str, holds: object, what: str) -> None:
    """`BootstrapError` that says *what* of a bootstrap of *kind* is wrong, unless *holds*."""
    if not holds:
        raise BootstrapError(
            f"{kind} bootstrap: {what}: the file is corrupt, cut or of an unknown kind, "
            "get or build it again"
        )


def check_areas(kind: str, areas: Iterable[Area], first: int, file_size: int) -> None:
    """`BootstrapError` unless all *areas* lie in [*first*, *file_size*) and none on another.

    *kind* names the sort of bootstrap in the message.
    """
    end = first
    before = "superblock"
    for area in sorted((area for area in areas if area.size), key=lambda area: area.offset):
        if area.offset < end:
            raise BootstrapError(
                f"{kind} bootstrap: {area.name} at {area.offset} overlaps the {before}, which "
                f"ends at {end}: the file is corrupt, get or build it again"
            )
        end = area.offset + area.size
        before = area.name
        if end > file_size:
            raise BootstrapError(
                f"{kind} bootstrap: {area.name} ends at {end}, the file at {file_size}: "
                "it is cut or corrupt, get or build it again"
            )


def inflates_too_much(plain_size: int, stored_size: int) -> bool:
    """Whether no table of *plain_size* bytes would be stored in as few as *stored_size*.

    What claims so is no table but an attempt on the memory: it is needed before the first byte is
    seen. Small ones are let through.
    """
    return plain_size > INFLATED_BYTES_FREE and plain_size > INFLATION_MAX * stored_size
