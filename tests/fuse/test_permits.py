import os

import pytest

from nydusd.fuse.permits import Permits


@pytest.mark.parametrize(
    ("workers", "processors", "spare"), [(4, 2, 1), (4, 3, 0), (4, 64, 0), (1, 1, 0), (64, 1, 62)]
)
def test_workers_beyond_the_processors_stand_by(workers, processors, spare):
    assert Permits(workers, processors).spare == spare


def test_the_processors_are_those_that_the_process_may_use():
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert Permits(4).spare == 2
    finally:
        os.sched_setaffinity(0, allowed)
