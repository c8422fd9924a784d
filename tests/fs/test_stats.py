import threading

import pytest

from nydusd.cache.pool import BlobPool
from nydusd.daemon.mounts import Mounts
from nydusd.fs.stats import FOP_NAMES, FsStats
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.daemon.test_mounts import request_for
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel

READ = FOP_NAMES.index("read")
LOOKUP = FOP_NAMES.index("lookup")
THREADS, READS = 6, 300
SWITCHES = {"iostats_files": True, "access_pattern": True, "latest_read_files": True}


@pytest.fixture
def mounted(tmp_path):
    """(kernel, stats) of an image that is served with everything counted."""
    vfs = Vfs()
    mounts = Mounts(vfs, BlobPool(), start_time=0.0)
    mounts.mount(request_for("v6-zstd", tmp_path, **SWITCHES))
    deferred = DeferredReads(vfs)
    deferred.start()
    kernel = Kernel(Server(vfs, deferred))
    yield kernel, vfs.filesystem("/").stats
    kernel.close()
    deferred.stop(-5)
    mounts.close()


def node_of(kernel, name):
    return wire.entry_of(kernel.ask(wire.LOOKUP, name + b"\0"))[0]


def read(kernel, node, offset, size):
    kernel.send(wire.request(wire.READ, wire.read_arg(offset, size), node=node))
    _, code, data = kernel.receive()
    return code, len(data)


def test_nothing_is_counted_at_first():
    counted = FsStats().snapshot()

    assert counted["fop_hits"] == counted["fop_errors"] == [0] * 15
    assert counted["block_count_read"] == counted["read_latency_dist"] == [0] * 8
    assert counted["data_read"] == 0


def test_reads_are_counted_by_the_size_that_was_asked_for(mounted):
    kernel, stats = mounted
    node = node_of(kernel, b"file-20000")
    for size in (100, 1024, 4096, 16384, 65536, 131072, 524288, 1 << 20):
        assert read(kernel, node, 0, size) == (0, min(size, 20000))
    counted = stats.snapshot()

    assert counted["block_count_read"] == [1] * 8
    assert counted["data_read"] == 100 + 1024 + 4096 + 16384 + 4 * 20000
    assert counted["fop_hits"][READ] == sum(counted["read_latency_dist"]) == 8
    assert counted["read_ns"] > 0


def test_a_name_that_is_not_there_is_a_hit_and_a_read_of_a_directory_an_error(mounted):
    kernel, stats = mounted
    kernel.ask(wire.LOOKUP, b"nobody\0")
    code, _ = read(kernel, node_of(kernel, b"deep"), 0, 100)
    counted = stats.snapshot()

    assert code < 0
    assert counted["fop_hits"][LOOKUP] == 2
    assert counted["fop_errors"][LOOKUP] == 0
    assert (counted["fop_hits"][READ], counted["fop_errors"][READ]) == (0, 1)


def test_each_file_is_counted_by_its_inode(mounted):
    kernel, stats = mounted
    node = node_of(kernel, b"file-4096")
    ino = node & ((1 << 48) - 1)
    read(kernel, node, 0, 4096)
    read(kernel, node, 0, 10)

    files = stats.files_snapshot()
    assert files[ino]["data_read"] == 4106
    assert files[ino]["fop_hits"][READ] == 2
    assert files[ino]["total_fops"] == 2
    assert [(each[0], each[1]) for each in stats.first_reads()] == [(ino, 2)]
    assert stats.take_latest_reads() == [ino]
    assert stats.take_latest_reads() == []


def test_files_are_not_counted_unless_that_is_asked_for(tmp_path):
    vfs = Vfs()
    mounts = Mounts(vfs, BlobPool(), start_time=0.0)
    mounts.mount(request_for("v6-zstd", tmp_path))
    stats = vfs.filesystem("/").stats

    assert stats.files_snapshot() == {}
    assert stats.first_reads() == stats.take_latest_reads() == []
    mounts.close()


def test_threads_lose_no_count(mounted):
    kernel, stats = mounted
    node = node_of(kernel, b"file-100")
    read(kernel, node, 0, 10)  # from now on it is in the cache file
    kernels = [Kernel(kernel.server) for _ in range(THREADS)]

    def read_often(mine):
        for _ in range(READS):
            assert read(mine, node, 0, 10) == (0, 10)

    threads = [threading.Thread(target=read_often, args=(each,)) for each in kernels]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for each in kernels:
        each.close()

    counted = stats.snapshot()
    assert counted["fop_hits"][READ] == THREADS * READS + 1
    assert counted["data_read"] == 10 * (THREADS * READS + 1)
    ino = node & ((1 << 48) - 1)
    assert stats.files_snapshot()[ino]["fop_hits"][READ] == THREADS * READS + 1
