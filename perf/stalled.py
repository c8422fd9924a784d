"""A folder mounted a second time, whose every read takes a fixed time: a backend that stalls.

`python -m perf.stalled SOURCE MOUNTPOINT DELAY_MS` serves the regular files of *SOURCE* until it is
unmounted or ended by SIGTERM. Any number of reads up to `WORKERS` wait at once, none waits for
another.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from pathlib import Path

import llfuse

WORKERS = 96  # more than the readers of any scenario


class SlowFolder(llfuse.Operations):
    """One flat folder of files; inode numbers are places in the sorted list of names."""

    def __init__(self, source: Path, delay_s: float) -> None:
        super().__init__()
        self.delay_s = delay_s
        self.names = sorted(os.fsencode(entry.name) for entry in source.iterdir())
        self.files = [os.open(source / os.fsdecode(name), os.O_RDONLY) for name in self.names]

    def getattr(self, inode, ctx=None):
        """Attributes of the folder or of a file."""
        entry = llfuse.EntryAttributes()
        entry.st_ino = inode
        entry.entry_timeout = entry.attr_timeout = 3600
        if inode == llfuse.ROOT_INODE:
            entry.st_mode = stat.S_IFDIR | 0o755
            return entry
        entry.st_mode = stat.S_IFREG | 0o444
        entry.st_size = os.fstat(self.files[inode - llfuse.ROOT_INODE - 1]).st_size
        return entry

    def lookup(self, parent_inode, name, ctx=None):
        """Attributes of *name*; ENOENT."""
        if name not in self.names:
            raise llfuse.FUSEError(errno.ENOENT)
        return self.getattr(llfuse.ROOT_INODE + 1 + self.names.index(name))

    def open(self, inode, flags, ctx):
        """The inode number is the handle."""
        return inode

    def opendir(self, inode, ctx):
        """The inode number is the handle."""
        return inode

    def readdir(self, fh, off):
        """All names from *off* on."""
        for place in range(off, len(self.names)):
            yield self.names[place], self.getattr(llfuse.ROOT_INODE + 1 + place), place + 1

    def read(self, fh, off, size):
        """The bytes, after the delay."""
        with llfuse.lock_released:
            time.sleep(self.delay_s)
            return os.pread(self.files[fh - llfuse.ROOT_INODE - 1], size, off)


def main() -> None:
    """Serve until the mount is gone."""
    source, mountpoint, delay_ms = sys.argv[1:]
    # sync_read: requests are not counted as background ones, of which a mount may have 12 at once.
    options = {*llfuse.default_options, "ro", "sync_read", "fsname=stalled"}
    llfuse.init(SlowFolder(Path(source), int(delay_ms) / 1e3), mountpoint, options)
    try:
        llfuse.main(workers=WORKERS)
    finally:
        llfuse.close()


if __name__ == "__main__":
    main()
