import pytest

from nydusd.base.errors import BootstrapError
from nydusd.rafs.areas import FAULTS_MAX, Area, Demands, check_areas


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
    check_areas(Demands("v6"), areas, 100, 200)


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
        check_areas(Demands("v6"), areas, 100, 200)


def test_all_faults_of_areas_are_kept_for_the_checker() -> None:
    demands = Demands("v6", keep=True)

    check_areas(demands, [Area("a", 99, 51), Area("b", 110, 5), Area("c", 120, 999)], 100, 200)

    first, second, third, fourth = demands.faults
    assert "a at 99 overlaps the superblock" in first
    assert "b at 110 overlaps the a" in second
    assert "c at 120 overlaps the a" in third
    assert "c ends at 1119" in fourth


def test_what_cannot_be_read_on_is_raised_for_the_checker_too() -> None:
    with pytest.raises(BootstrapError, match="magic"):
        Demands("v6", keep=True).must(False, "magic is 0")


def test_kept_faults_are_bounded() -> None:
    demands = Demands("v6", keep=True)

    for number in range(FAULTS_MAX):
        demands.check(False, f"fault {number}")
    with pytest.raises(BootstrapError, match="one more"):
        demands.check(False, "one more")

    assert len(demands.faults) == FAULTS_MAX
