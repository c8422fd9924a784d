import ctypes
import mmap
import os
from pathlib import Path

import pytest

from nydusd.cache.resident import ResidentPages, is_at_hand

MIB = 1 << 20
WINDOW = 2 * MIB
COPIES = 2048  # that are judged together
TRIES = 100  # a busy machine may take its time between two copies


class Mapped:
    """A file of *size* bytes that is mapped, and what of it is resident."""

    def __init__(self, path, size, data=True):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        os.ftruncate(self.fd, size)
        if data:
            os.pwrite(self.fd, os.urandom(size), 0)
        self.map = mmap.mmap(self.fd, size, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        self.keep = ctypes.c_char.from_buffer(self.map)
        self.base = ctypes.addressof(self.keep)
        self.size = size
        self.pages = ResidentPages(self.fd, self.base, size)
        if data and not is_at_hand(self.fd, 0, size):
            pytest.skip("the kernel does not count cached pages (cachestat, Linux 6.5)")

    def close(self):
        del self.keep
        self.map.close()
        os.close(self.fd)

    def resident(self):
        """Bytes of the mapping in this process's resident memory."""
        here = False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                low, high = (int(word, 16) for word in first.split("-"))
                here = low <= self.base < high
            elif here and first == "Rss:":
                return int(line.split()[1]) << 10
        raise AssertionError("the mapping has gone")

    def heat(self):
        """Have small reads come fast."""
        self.pages.look_after()
        for _ in range(TRIES):
            for _ in range(2 * COPIES):
                self.pages.count_copy()
            if self.pages.is_hot(0, 1):
                return


@pytest.fixture
def make(tmp_path):
    made = []

    def one(size=3 * WINDOW, data=True):
        made.append(Mapped(tmp_path / f"data{len(made)}", size, data))
        return made[-1]

    yield one
    for each in made:
        each.close()


def test_fast_small_reads_map_the_windows_that_they_are_in(make):
    file = make()
    file.heat()

    assert file.pages.is_hot(0, 4096)
    assert file.pages.hot_bytes == WINDOW
    assert file.resident() == WINDOW
    assert file.pages.is_hot(2 * WINDOW + 4096, 4096)
    assert file.pages.hot_bytes == 2 * WINDOW
    assert file.resident() == 2 * WINDOW


def test_a_read_across_two_windows_is_not_hot(make):
    file = make()
    file.heat()

    assert file.pages.is_hot(WINDOW - 4096, 4096)
    assert not file.pages.is_hot(WINDOW - 4096, 4097)


def test_the_last_window_may_be_a_short_one(make):
    file = make(size=WINDOW + 5000)
    file.heat()

    assert file.pages.is_hot(WINDOW + 4000, 1000)
    assert file.pages.hot_bytes == WINDOW + 5000


def test_nothing_is_hot_after_one_count_or_where_nobody_looks_after_it(make):
    file, unwatched = make(), make()
    file.pages.look_after()
    for _ in range(COPIES):
        file.pages.count_copy()
    for _ in range(10 * COPIES):
        unwatched.pages.count_copy()

    assert not file.pages.is_hot(0, 1)
    assert not unwatched.pages.is_hot(0, 1)
    assert file.resident() == unwatched.resident() == 0


def test_a_window_cools_when_nobody_has_read_it(make):
    file = make()
    file.heat()
    file.pages.cool()
    assert file.resident() == WINDOW  # it was read since it became hot

    file.pages.cool()

    assert file.resident() == 0
    assert file.pages.hot_bytes == 0
    assert not file.pages.is_hot(0, 1)
    file.heat()
    assert file.pages.is_hot(0, 1)


def test_only_windows_that_many_reads_fall_in_stay_hot(make):
    file = make()
    file.heat()
    assert file.pages.is_hot(WINDOW, 4096)
    file.pages.cool()
    for _ in range(30):
        assert file.pages.is_hot(WINDOW, 4096)
    assert file.pages.is_hot(0, 4096)

    file.pages.cool()

    assert file.resident() == WINDOW
    assert file.pages.hot_bytes == WINDOW
    assert file.pages.is_hot(WINDOW, 4096)
    file.pages.cool()
    assert file.resident() == 0


def test_a_large_read_maps_no_window(make):
    file = make()
    file.heat()

    assert not file.pages.is_hot(WINDOW, (1 << 14) + 1)
    assert file.pages.is_hot(WINDOW, 1 << 14)
    assert file.pages.is_hot(WINDOW, 1 << 17)  # it is mapped now


def test_what_is_not_in_page_cache_is_not_mapped_and_looked_at_again_later(make):
    file = make(data=False)
    file.heat()
    assert not file.pages.is_hot(0, 4096)
    os.pwrite(file.fd, os.urandom(WINDOW), 0)
    assert not file.pages.is_hot(0, 4096)  # as was seen before

    file.pages.cool()

    assert file.pages.is_hot(0, 4096)
    assert not file.pages.is_hot(WINDOW, 4096)
    assert file.resident() == WINDOW


def test_hits_elsewhere_are_unmapped_and_hot_windows_stay(make):
    file = make(size=8 * WINDOW)
    file.heat()
    assert file.pages.is_hot(3 * WINDOW, 1)
    assert sum(file.map[:: mmap.PAGESIZE]) > 0  # map all of it
    assert file.resident() == 8 * WINDOW

    file.pages.count_mapped(4 * MIB)

    assert file.resident() == 2 * WINDOW


def test_a_range_is_at_hand_when_all_of_its_pages_are_in_memory(tmp_path):
    size = 1 << 20
    path = tmp_path / "data"
    path.write_bytes(bytes(size - 1))
    fd = os.open(path, os.O_RDWR)
    try:
        if not is_at_hand(fd, 0, 1):
            pytest.skip("the kernel does not count cached pages (cachestat, Linux 6.5)")
        assert is_at_hand(fd, 4095, 2)
        assert is_at_hand(fd, 100, size - 101)
        assert not is_at_hand(fd, 100, size - 100)  # the file ends before
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        if is_at_hand(fd, 0, 1):
            pytest.skip("this file system keeps its pages in memory")
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)  # nothing is read ahead
        os.pread(fd, 1, 0)
        os.pread(fd, 1, size - 2)
        assert is_at_hand(fd, 0, 4096)
        assert not is_at_hand(fd, 0, size - 1)
        os.pread(fd, size, 0)
        assert is_at_hand(fd, 0, size - 1)
    finally:
        os.close(fd)
