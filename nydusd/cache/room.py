"""Room of a cache directory: what was not used for longest goes before its limit is passed.

One `CacheRoom` keeps one directory within its limit, for one process. What other processes have
open is theirs: nothing of it goes (docs/decisions/0017). Blobs that nobody has open go whole, by
the time when they were closed; of open ones go chunks, by the time of their last use.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import threading
import time
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError
from nydusd.base.record import NamedTuple
from nydusd.cache.evict import bytes_by_stamp, evict, ignore_lease_breaks
from nydusd.cache.files import DATA_SUFFIXES, files_of
from nydusd.cache.quota import EARLY_PERCENT, Quota
from nydusd.cache.uses import stamp_now

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from nydusd.cache.cached_blob import CachedBlob

logger = logging.getLogger("nydusd")

LOOK_SECONDS = 1.0  # between two looks whether something was kept
SCAN_LOOKS = 30  # after so many looks the directory is measured anyway: others write there too
FREED_PERCENT = 10  # of the limit, below it, so that not every chunk makes another one go
BLOCK_BYTES = 512
F_SETLEASE = 1024  # Linux: fcntl.h


class Candidate(NamedTuple):
    """What could go: chunks of an open blob with one stamp, or a whole blob that is closed."""

    stamp: int  # of the last use
    size: int  # bytes
    blob: CachedBlob | None
    path: Path | None  # of the data file of a closed blob


class CacheRoom:
    """Keeps *folder* within *limit* bytes; *blobs* tells which ones are open in this process.

    `quota` is what those blobs ask before they keep anything.
    """

    def __init__(self, folder: Path, limit: int, blobs: Callable[[], list[CachedBlob]]) -> None:
        self.folder = folder
        self.limit = limit
        self._blobs = blobs
        self._kept = 0
        self._full_reported = False
        self._stop = threading.Event()
        self._wake = threading.Event()
        self.quota = Quota(limit, self._wake.set)
        self._thread = threading.Thread(target=self._run, name="cache-room", daemon=True)
        ignore_lease_breaks()

    def start(self) -> None:
        """Measure the directory, and begin to look after it."""
        with contextlib.suppress(OSError):  # the thread meets it again, and tells it
            self.quota.measured(self.quota.begin(), self.used())
        self._thread.start()

    def close(self) -> None:
        """Stop looking after it."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        looks = 0
        while True:
            asked = self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._stop.is_set():
                return
            looks += 1
            kept = sum(blob.counters.snapshot()["kept_bytes"] for blob in self._open())
            idle = kept == self._kept and not asked and not self.quota.short
            if idle and looks < SCAN_LOOKS:
                continue
            self._kept, looks = kept, 0
            try:
                self.make_room()
            except Exception:
                logger.exception("cache directory %s: its size is not kept", self.folder)

    def used(self) -> int:
        """Bytes that the directory's files take on the disk now; 0 when somebody removed it."""
        total = 0
        with contextlib.suppress(FileNotFoundError), os.scandir(self.folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    total += entry.stat(follow_symlinks=False).st_blocks * BLOCK_BYTES
        return total

    def make_room(self) -> int:
        """Evict what was not used for longest when the limit is near; bytes that went."""
        begun = self.quota.begin()
        used = self.used()
        goal = self.quota.goal(100 - FREED_PERCENT)
        if used <= self.quota.goal(100 - EARLY_PERCENT):
            self._full_reported = False
            self.quota.measured(begun, used)
            return 0
        freed = self._free(used - goal)
        self.quota.measured(begun, self.used() if freed else used, in_use=not freed)
        if freed:
            logger.info("cache directory %s: %d bytes made free", self.folder, freed)
        elif not self._full_reported:
            self._full_reported = True
            logger.warning(
                "cache directory %s holds %d of %d bytes, all of it is in use: "
                "what does not fit is not kept",
                self.folder, used, self.limit,
            )  # fmt: skip
        return freed

    def _free(self, wanted: int) -> int:
        """Evict *wanted* bytes, or all that may go; how many went."""
        freed = 0
        for candidate in sorted(self._candidates(), key=lambda row: (row.stamp, -row.size)):
            if freed >= wanted or self._stop.is_set():
                break
            freed += self._drop(candidate, wanted - freed)
        return freed

    def _open(self) -> list[CachedBlob]:
        """Blobs of the directory that this process has open and may take chunks from."""
        return [
            blob
            for blob in self._blobs()
            if blob.file is not None and blob.tracks_uses and self._holds(blob.file.path)
        ]

    def _holds(self, path: str | os.PathLike[str]) -> bool:
        return os.path.dirname(os.fspath(path)) == os.fspath(self.folder)  # noqa: PTH120

    def _candidates(self) -> list[Candidate]:
        found = []
        opened = set()
        for blob in self._open():
            assert blob.file is not None
            opened.add(os.path.basename(os.fspath(blob.file.path)))  # noqa: PTH119
            for stamp, size in bytes_by_stamp(blob).items():
                found.append(Candidate(stamp, size, blob, None))
        older = stamp_now() - time.time()
        for suffix in DATA_SUFFIXES:
            for path in self.folder.glob(f"*{suffix}"):
                with contextlib.suppress(FileNotFoundError):
                    state = path.stat()
                    if path.name not in opened and state.st_blocks:
                        stamp = int(older + max(state.st_mtime, state.st_atime))
                        size = state.st_blocks * BLOCK_BYTES
                        found.append(Candidate(stamp, size, None, path))
        return found

    def _drop(self, candidate: Candidate, wanted: int) -> int:
        try:
            if candidate.blob is not None:
                return evict(candidate.blob, candidate.stamp, wanted)
            assert candidate.path is not None
            return candidate.size if remove_closed(candidate.path) else 0
        except (OSError, BackendError) as exc:  # the second: closed in this moment
            logger.warning("cache directory %s: %s", self.folder, exc)
            return 0


def remove_closed(data: Path) -> bool:
    """Remove the files of the blob whose data file is *data*, unless somebody has it open.

    The maps go first: a fresh data file beside an old map would be believed (docs/decisions/0011).
    """
    fd = os.open(data, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.fcntl(fd, F_SETLEASE, fcntl.F_WRLCK)
        for path in files_of(data):
            path.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    else:
        return True
    finally:
        os.close(fd)  # and with it the lease
