"""Many readers on many images of a registry, images that come and go, caches that are too small.

`NYDUSD_TEST_SOAK` is the seconds that it lasts; memory is held to its bound from ten minutes on.
"""

from __future__ import annotations

import os

import pytest

from perf.soak import GROWTH_KIB, SETTLE_SECONDS, report, soak
from tests.servers.distribution import PROGRAM

SECONDS = float(os.environ.get("NYDUSD_TEST_SOAK", "20"))
# In so short a time caches of the process still fill: what this sees is a leak of some KiB a read.
SHORT_GROWTH_KIB = 16 << 10

pytestmark = [
    pytest.mark.root,
    pytest.mark.fuse,
    pytest.mark.slow,
    pytest.mark.timeout(SECONDS + 240),
    pytest.mark.skipif(
        PROGRAM is None, reason="needs docker-registry (Debian package docker-registry)"
    ),
]


def test_64_readers_of_8_images_read_right_bytes_while_memory_stays_flat(nydusd, tmp_path):
    outcome = soak(tmp_path, nydusd, SECONDS)
    print(report(outcome))

    slack = GROWTH_KIB if SECONDS > 5 * SETTLE_SECONDS else SHORT_GROWTH_KIB
    assert not outcome.faults(slack)
    assert outcome.samples[-1].reads > 64 * 8
