import threading

import pytest

from nydusd.base.counters import Counters


def test_counters_start_at_zero_and_keep_their_sums():
    counters = Counters("hits", "misses")
    counters.raise_by("hits")
    counters.raise_by("hits", 4)
    assert counters.snapshot() == {"hits": 5, "misses": 0}


def test_no_addition_of_many_threads_is_lost():
    counters = Counters("hits")

    def add():
        for _ in range(1000):
            counters.raise_by("hits")

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.snapshot() == {"hits": 8000}


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="not in tuple"):
        Counters("hits").raise_by("misses")
