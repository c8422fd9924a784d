import copy
import pickle

import pytest

from nydusd.base.record import NamedTuple


class Point(NamedTuple):
    """A point."""

    x: int
    y: int = 2
    label: str = ""

    def norm(self):
        return abs(self.x) + abs(self.y)


class Shown(NamedTuple):
    secret: str

    def __repr__(self):
        return "Shown()"


def test_fields_come_by_place_by_name_and_by_default():
    assert Point(1) == (1, 2, "") == Point(x=1) == Point(1, label="")
    assert Point(1, 3, "p") == Point(label="p", x=1, y=3)
    assert Point(1, 3).y == 3
    assert Point(-1).norm() == 3


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, 2, "", 4), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})],
)
def test_what_is_no_set_of_fields_is_refused(values, named):
    with pytest.raises(TypeError, match=r"Point\(\): "):
        Point(*values, **named)


def test_it_is_a_tuple_that_cannot_be_changed():
    point = Point(1, 2, "p")
    x, y, label = point

    assert (x, y, label) == point
    assert hash(point) == hash((1, 2, "p"))
    with pytest.raises(AttributeError):
        point.x = 2
    with pytest.raises(AttributeError):
        point.other = 2


def test_the_methods_of_a_named_tuple_are_there():
    point = Point(1, 2, "p")

    assert point._replace(y=5) == Point(1, 5, "p")
    assert type(point._replace(y=5)) is Point
    assert point._asdict() == {"x": 1, "y": 2, "label": "p"}
    assert Point._make([1, 2, "p"]) == point
    assert Point._fields == ("x", "y", "label")
    assert Point._field_defaults == {"y": 2, "label": ""}
    with pytest.raises(ValueError, match="other"):
        point._replace(other=1)


def test_it_is_shown_with_its_fields_or_as_the_class_wishes():
    assert repr(Point(1)) == "Point(x=1, y=2, label='')"
    assert repr(Shown("UNSPOKEN")) == "Shown()"


def test_it_is_copied_pickled_and_matched():
    point = Point(1, 2, "p")

    assert copy.copy(point) == copy.deepcopy(point) == pickle.loads(pickle.dumps(point)) == point
    match point:
        case Point(x, 2, label):
            assert (x, label) == (1, "p")
        case _:
            pytest.fail("does not match")
