import pytest

from nydusd.base.errors import BootstrapError
from nydusd.rafs.areas import Area, check_areas


@pytest.mark.parametrize(
    "areas",
    [
        [],
        [Area("a", 100, 10), Area("b", 110, 90)],
        [Area("b", 150, 50), Area("a", 100, 50)],
        [Area("nothing", 7, 0), Area("nothing", 2**64 - 1, 0)],
    ],
)
def test_areas_apart_and_inside_are_accepted(areas: list[Area]) -> None:
    check_areas("v6", areas, 100, 200)


@pytest.mark.parametrize(
    ("areas", "message"),
    [
        ([Area("a", 99, 1)], "a at 99 overlaps the superblock"),
        ([Area("a", 150, 51)], "a ends at 201, the file at 200"),
        ([Area("b", 120, 10), Area("a", 100, 21)], "b at 120 overlaps the a"),
        ([Area("a", 2**64 - 8, 2**32)], "ends at"),
    ],
)
def test_areas_outside_or_on_each_other_are_refused(areas: list[Area], message: str) -> None:
    with pytest.raises(BootstrapError, match=message):
        check_areas("v6", areas, 100, 200)
