"""The mount table, asked through the server as a kernel does."""

from __future__ import annotations

import errno
import threading
import weakref

import pytest

from nydusd.base.errors import MountError
from nydusd.fs.pseudo import PseudoFs
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fs.memory import MemoryFs
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel, request


@pytest.fixture
def vfs():
    return Vfs()


@pytest.fixture
def deferred(vfs):
    deferred = DeferredReads(vfs)
    deferred.start()
    yield deferred
    deferred.stop(-errno.EIO)


@pytest.fixture
def kernel(vfs, deferred):
    kernel = Kernel(Server(vfs, deferred))
    yield kernel
    kernel.close()


def walk(kernel: Kernel, *names: bytes) -> int:
    """The node id that *names* lead to."""
    node = wire.ROOT_NODE
    for name in names:
        node = wire.entry_of(kernel.ask(wire.LOOKUP, name + b"\0", node))[0]
    return node


def test_without_mounts_there_is_an_empty_directory(kernel):
    attr = wire.attr_of(kernel.ask(wire.GETATTR, bytes(16))[16:])
    assert (attr["ino"], attr["mode"]) == (1, 0o40777)


def test_a_mount_below_the_root_is_reached_through_pseudo_directories(vfs, kernel):
    assert vfs.mount(MemoryFs({b"f": b"data"}), "/a/b") == 1

    assert walk(kernel, b"a") == 2
    assert walk(kernel, b"a", b"b") == 1 << 56 | 1
    assert walk(kernel, b"a", b"b", b"f") == 1 << 56 | 2
    assert kernel.ask(wire.READ, wire.read_arg(0, 9), node=1 << 56 | 2) == b"data"


def test_slots_are_used_in_turn_and_not_again_at_once(vfs):
    assert vfs.mount(MemoryFs({}), "/a") == 1
    assert vfs.umount("/a")
    assert vfs.mount(MemoryFs({}), "/a") == 2
    assert vfs.mounts() == {"/a": 2}


def test_a_slot_above_255_has_its_high_byte_below_its_low_byte(vfs, kernel):
    vfs.mount(MemoryFs({}), "/a", slot=0x102)

    assert walk(kernel, b"a") == 0x02 << 56 | 0x01 << 48 | 1


def test_a_path_is_mounted_once(vfs):
    vfs.mount(MemoryFs({}), "/a")

    with pytest.raises(MountError, match="already mounted"):
        vfs.mount(MemoryFs({}), "/a/")


def test_a_taken_slot_is_refused(vfs):
    vfs.mount(MemoryFs({}), "/a", slot=7)

    with pytest.raises(MountError, match="slot 7"):
        vfs.mount(MemoryFs({}), "/b", slot=7)
    with pytest.raises(MountError, match="slot 65536"):
        vfs.mount(MemoryFs({}), "/b", slot=65536)


def test_umount_of_nothing_is_refused(vfs):
    with pytest.raises(MountError, match="nothing is mounted"):
        vfs.umount("/a")


def test_after_umount_the_nodes_are_gone_and_the_directory_stays(vfs, kernel):
    vfs.mount(MemoryFs({b"f": b""}), "/a")
    file = walk(kernel, b"a", b"f")
    vfs.umount("/a")

    assert walk(kernel, b"a") == 2
    with pytest.raises(OSError, match="No such file"):
        kernel.ask(wire.GETATTR, bytes(16), node=file)


def test_an_unmounted_file_system_is_let_go_of(vfs):
    filesystem = MemoryFs({})
    gone = weakref.ref(filesystem)
    vfs.mount(filesystem, "/a")
    del filesystem
    assert gone() is not None
    vfs.umount("/a")

    assert gone() is None


def test_umount_waits_for_the_reads_inside(vfs, kernel):
    filesystem = MemoryFs({b"f": b"data"}, stalled={b"f"})
    vfs.mount(filesystem, "/a")
    file = walk(kernel, b"a", b"f")
    kernel.send(request(wire.READ, wire.read_arg(0, 4), node=file))
    assert vfs.in_flight("/a") == 1

    assert not vfs.umount("/a", timeout=0.05)
    assert vfs.collect() == 1
    filesystem.release.set()
    assert kernel.receive() == (wire.UNIQUE, 0, b"data")


def test_remount_swaps_the_file_system_of_the_slot(vfs, kernel):
    vfs.mount(MemoryFs({b"f": b"old"}), "/a")
    file = walk(kernel, b"a", b"f")

    assert vfs.remount(MemoryFs({b"f": b"new"}), "/a")
    assert kernel.ask(wire.READ, wire.read_arg(0, 9), node=file) == b"new"
    assert vfs.mounts() == {"/a": 1}


def test_the_kernel_is_told_which_name_changed(vfs):
    told = []
    vfs.on_change(lambda parent, name: told.append((parent, name)))
    vfs.mount(MemoryFs({}), "/a/b")
    vfs.umount("/a/b")
    vfs.mount(MemoryFs({}), "/")

    assert told == [(2, b"b"), (2, b"b"), (1, None), (1, b"a")]


def test_a_successor_goes_on_with_the_same_numbers(vfs):
    vfs.mount(MemoryFs({}), "/a")
    successor = Vfs()
    successor.restore(vfs.dump())

    assert successor.mount(MemoryFs({}), "/a", slot=1) == 1
    assert successor.mount(MemoryFs({}), "/b") == 2


def test_mounts_come_and_go_while_requests_are_served(vfs, deferred):
    over = threading.Event()
    answers: list[set[int]] = []

    def ask():
        kernel = Kernel(Server(vfs, deferred))
        seen = set()
        while not over.is_set():
            kernel.send(request(wire.GETATTR, bytes(16), node=1 << 56 | 1))
            kernel.send(request(wire.LOOKUP, b"a\0"))
            seen |= {kernel.receive()[1], kernel.receive()[1]}
        kernel.close()
        answers.append(seen)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(300):
        vfs.mount(MemoryFs({}), "/a", slot=1)
        assert vfs.remount(MemoryFs({}), "/a", timeout=10)
        assert vfs.umount("/a", timeout=10)
    over.set()
    for thread in threads:
        thread.join()

    assert len(answers) == 3
    assert all(seen <= {0, -errno.ENOENT} for seen in answers)
    assert vfs.collect() == 0


def test_slots_of_one_byte_go_round_and_others_are_used_when_there_is_none():
    vfs = Vfs()
    filesystem = PseudoFs()
    for _ in range(600):
        slot = vfs.mount(filesystem, "/a")
        assert 0 < slot < 256
        vfs.umount("/a")
    slots = [vfs.mount(filesystem, f"/b/{number}") for number in range(300)]
    assert sorted(slots)[254:] == list(range(255, 301))
    vfs.umount("/b/7")
    assert vfs.mount(filesystem, "/b/7") == slots[7]
