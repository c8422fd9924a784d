import pytest

from nydusd.base.errors import BackendError
from nydusd.cache.held_range import HELD_BYTES_MAX, HeldRange

DATA = bytes(range(256)) * 8192


class Counting:
    def __init__(self):
        self.asked = []
        self.broken = False

    def size(self):
        return len(DATA)

    def read_into(self, buffer, offset, *, background=False):
        self.asked.append((offset, len(buffer)))
        if self.broken:
            raise BackendError("away")
        buffer[:] = DATA[offset : offset + len(buffer)]

    def close(self):
        raise AssertionError("it is not ours")


def read(reader, offset, size):
    buffer = bytearray(size)
    reader.read_into(buffer, offset)
    return bytes(buffer)


def test_parts_of_the_range_cost_one_request():
    below = Counting()
    held = HeldRange(below, 1000, 500)

    assert read(held, 1400, 100) == DATA[1400:1500]
    assert read(held, 1000, 400) == DATA[1000:1400]
    assert below.asked == [(1000, 500)]


@pytest.mark.parametrize(("offset", "size"), [(999, 2), (1499, 2), (0, 4), (5000, 5)])
def test_what_lies_outside_is_asked_for_as_it_is(offset, size):
    below = Counting()

    assert read(HeldRange(below, 1000, 500), offset, size) == DATA[offset : offset + size]
    assert below.asked == [(offset, size)]


def test_a_large_range_is_not_held():
    below = Counting()
    held = HeldRange(below, 0, HELD_BYTES_MAX + 1)
    read(held, 0, 10)

    assert below.asked == [(0, 10)]


def test_a_failure_is_not_remembered():
    below = Counting()
    held = HeldRange(below, 1000, 500)
    below.broken = True
    with pytest.raises(BackendError):
        read(held, 1000, 5)
    below.broken = False

    assert read(held, 1000, 5) == DATA[1000:1005]
    held.close()
