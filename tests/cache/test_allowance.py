import threading

import pytest

from nydusd.cache.allowance import give_bytes_back, held_bytes, take_bytes

MIB = 1 << 20


@pytest.fixture(autouse=True)
def nothing_is_held():
    assert held_bytes() == 0
    yield
    assert held_bytes() == 0


class Taker(threading.Thread):
    """Takes *size* bytes, and gives them back when told to."""

    def __init__(self, size: int) -> None:
        super().__init__(daemon=True)
        self.size = size
        self.has_it = threading.Event()
        self.done = threading.Event()
        self.start()

    def run(self) -> None:
        take_bytes(self.size)
        self.seen = held_bytes()
        self.has_it.set()
        self.done.wait(10)
        give_bytes_back(self.size)

    def end(self) -> None:
        self.done.set()
        self.join(60)


def test_a_thread_waits_until_others_have_given_back_what_it_needs():
    first, second = Taker(20 * MIB), Taker(20 * MIB)
    assert first.has_it.wait(60)
    assert second.has_it.wait(60)
    third = Taker(1)
    assert not third.has_it.is_set()
    assert held_bytes() == 40 * MIB
    first.end()
    assert third.has_it.wait(60)
    second.end()
    third.end()


def test_what_is_more_than_all_there_is_waits_for_nobody_to_hold_any():
    small = Taker(1)
    assert small.has_it.wait(60)
    large = Taker(100 * MIB)
    assert not large.has_it.is_set()
    small.end()
    assert large.has_it.wait(60)
    large.end()


def test_a_thread_that_holds_some_does_not_wait():
    first = Taker(40 * MIB)
    assert first.has_it.wait(60)
    first.end()
    take_bytes(30 * MIB)
    take_bytes(30 * MIB)
    assert held_bytes() == 60 * MIB
    give_bytes_back(30 * MIB)
    give_bytes_back(30 * MIB)


def test_many_threads_never_hold_more_than_there_is():
    takers = [Taker(3 * MIB) for _ in range(60)]
    for taker in takers:
        taker.done.set()
    for taker in takers:
        taker.join(60)
        assert not taker.is_alive()
    assert max(taker.seen for taker in takers) <= 40 * MIB
