"""The thread that looks after cache files: that it rests when it is told to."""

from __future__ import annotations

import os
import threading

from nydusd.cache.syncer import Syncer


class File:
    """A cache file that counts what is done with it."""

    def __init__(self, path, fails: bool = False):
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT)
        self.fails = fails
        self.syncs = 0

    def watch(self, watches) -> int:
        self.watches = watches
        return watches.add(self.fd)

    def look(self, *, changed: bool) -> bool:
        return True

    def sync(self) -> None:
        self.syncs += 1
        if self.fails:
            raise OSError("no disk any more")


def test_a_syncer_that_rests_has_synced_all_and_watches_nothing(tmp_path):
    before = set(threading.enumerate())
    syncer = Syncer()
    files = [File(tmp_path / str(number)) for number in range(3)]
    for file in files:
        syncer.add(file)
    watched = files[0].watches.fd

    syncer.rest()
    assert [file.syncs for file in files] == [1, 1, 1]
    assert not os.path.exists(f"/proc/self/fd/{watched}")  # noqa: PTH110 - a link to nowhere
    assert set(threading.enumerate()) <= before
    for file in files:
        syncer.remove(file)  # as closing them does
        os.close(file.fd)


def test_a_file_that_cannot_be_synced_keeps_no_other_from_it(tmp_path, caplog):
    syncer = Syncer()
    files = [File(tmp_path / str(number), fails=number == 0) for number in range(2)]
    for file in files:
        syncer.add(file)

    syncer.rest()
    assert [file.syncs for file in files] == [1, 1]
    assert "could not be looked after" in caplog.text
    caplog.clear()
    for file in files:
        os.close(file.fd)


def test_a_file_that_comes_after_the_rest_is_looked_after(tmp_path):
    syncer = Syncer()
    syncer.rest()
    before = set(threading.enumerate())
    file = File(tmp_path / "late")
    syncer.add(file)
    assert [one.name for one in set(threading.enumerate()) - before] == ["cache-sync"]
    syncer.rest()
    assert file.syncs == 1
    os.close(file.fd)
