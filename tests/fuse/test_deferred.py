"""Slow reads are answered from a pool of their own, and end with it."""

from __future__ import annotations

import errno
import threading

import pytest

from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fs.memory import MemoryFs
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel, request

SLOW = 1 << 56 | 2
QUICK = 1 << 56 | 3


class Setup:
    """A server over one slow and one quick file, with a pool of at most *limit* threads."""

    def __init__(self, limit: int):
        self.filesystem = MemoryFs({b"slow": b"late", b"quick": b"soon"}, stalled={b"slow"})
        self.vfs = Vfs()
        self.vfs.mount(self.filesystem, "/")
        self.deferred = DeferredReads(self.vfs, limit)
        self.deferred.start()
        self.kernel = Kernel(Server(self.vfs, self.deferred))

    def read(self, node: int, unique: int) -> None:
        self.kernel.send(request(wire.READ, wire.read_arg(0, 100), node, unique))


@pytest.fixture(params=[64])
def setup(request):
    setup = Setup(request.param)
    yield setup
    setup.filesystem.release.set()
    setup.deferred.stop(-errno.EIO)
    setup.kernel.close()


def test_a_quick_read_passes_many_that_are_stalled(setup):
    for unique in range(1, 51):
        setup.read(SLOW, unique)
    setup.read(QUICK, 1000)

    assert setup.kernel.receive() == (1000, 0, b"soon")
    setup.filesystem.release.set()
    assert sorted(setup.kernel.receive()[0] for _ in range(50)) == list(range(1, 51))
    assert setup.deferred.wait_until_idle(10)
    assert setup.vfs.in_flight("/") == 0


@pytest.mark.parametrize("setup", [3], indirect=True)
def test_the_pool_keeps_its_limit_and_loses_nothing(setup):
    for unique in range(1, 501):
        setup.read(SLOW, unique)
    assert setup.deferred.thread_count <= 3
    assert setup.deferred.waiting == 500

    setup.filesystem.release.set()
    assert sorted(setup.kernel.receive()[0] for _ in range(500)) == list(range(1, 501))


@pytest.mark.parametrize("setup", [2], indirect=True)
def test_stop_answers_what_runs_and_what_waits(setup):
    for unique in range(1, 6):
        setup.read(SLOW, unique)
    setup.deferred.stop(-errno.ENOTCONN, join=0.0)

    answers = sorted(setup.kernel.receive() for _ in range(5))
    assert answers == [(unique, -errno.ENOTCONN, b"") for unique in range(1, 6)]
    setup.filesystem.release.set()
    assert setup.deferred.wait_until_idle(10)
    assert not setup.kernel.has_reply()


def test_stop_can_leave_reads_to_a_successor(setup):
    setup.read(SLOW, 1)
    setup.deferred.stop(0, join=0.0)
    setup.filesystem.release.set()

    assert setup.deferred.wait_until_idle(10)
    assert not setup.kernel.has_reply()


def test_stop_gives_reads_time_to_end(setup):
    setup.read(SLOW, 1)
    threading.Timer(0.05, setup.filesystem.release.set).start()
    setup.deferred.stop(-errno.ENOTCONN, drain=10.0)

    assert setup.kernel.receive() == (1, 0, b"late")


def test_after_stop_a_read_is_refused_at_once(setup):
    setup.deferred.stop(-errno.ENOTCONN)
    setup.read(QUICK, 7)

    assert setup.kernel.receive() == (7, -errno.ENOTCONN, b"")


def test_threads_end_with_stop(setup):
    setup.read(QUICK, 1)
    setup.kernel.receive()
    setup.deferred.stop(-errno.EIO)

    assert setup.deferred.thread_count == 0
