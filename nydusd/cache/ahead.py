"""Fetching ahead of who reads a blob in order, so that the next bytes are on their way already.

A reader that goes through an image, or several side by side, misses at the end of what the read
before brought along, again and again, and waits a round trip each time. `ReadAhead` hears of the
fetches of one device, before each asks its backend. The third in a row makes it claim what comes
next and get it on threads of its own, beside the fetch. It is never more than half of what was
fetched in this row, and ends with the row: who jumps about is not read ahead for.

`note` is what `cache.device` calls before each fetch; any thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError, BlobCorrupt
from nydusd.base.record import NamedTuple
from nydusd.cache.fill import claim_run, next_missing

if TYPE_CHECKING:
    from nydusd.cache.cached_blob import CachedBlob
    from nydusd.cache.fill import ClaimedRun

logger = logging.getLogger("nydusd")

IN_A_ROW = 3  # fetches that make a row
WINDOWS_MAX = 4  # ahead of one reader at a time
THREADS_MAX = 8  # of one device
ROWS_MAX = 8  # of one blob that are remembered: readers side by side
PASSED_MAX = 1024  # chunks that are here already, between a row's end and its next fetch
IDLE_SECONDS = 10.0  # of a thread, before it ends


class Row(NamedTuple):
    """Fetches of a blob, each from where the one before ended."""

    after: int  # the chunk after the last one of them
    windows: int  # fetches, those made ahead included


class ReadAhead:
    """Fetches ahead for one device; *batch_size*: bytes of a request with what comes along."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._changed = threading.Condition()
        # Guarded by the condition:
        self._rows: dict[int, list[Row]] = {}  # blob index -> rows, the last one used last
        self._line: deque[ClaimedRun] = deque()
        self._threads = 0
        self._busy = 0
        self._closed = False

    def note(self, blob: CachedBlob, first: int, after: int) -> None:
        """Hear that a read which needs chunk *first* gets all up to the one before *after*."""
        with self._changed:
            if self._closed:
                return
            windows = self._take_row(blob, first) + 1
            runs: list[ClaimedRun] = []
            if windows >= IN_A_ROW:
                free = THREADS_MAX - self._busy - len(self._line)
                runs = self._claim(blob, after, min(windows // 2, WINDOWS_MAX, free))
            if runs:
                after = runs[-1].after
            rows = self._rows.setdefault(blob.info.blob_index, [])
            rows.append(Row(after, windows + len(runs)))
            del rows[:-ROWS_MAX]
            for run in runs:
                self._hand_over(run)

    def close(self) -> None:
        """Begin nothing more; what is under way ends with its backend."""
        with self._changed:
            self._closed = True
            while self._line:
                self._line.pop().give_up()
            self._changed.notify_all()

    def _take_row(self, blob: CachedBlob, first: int) -> int:
        """Windows of the longest row that a fetch from chunk *first* on continues; taken out."""
        rows = self._rows.get(blob.info.blob_index, [])
        continued = [
            row
            for row in rows
            if row.after <= first <= row.after + PASSED_MAX
            and next_missing(blob, row.after, first) == first
        ]
        if not continued:
            return 0
        longest = max(continued, key=lambda row: row.windows)
        rows.remove(longest)
        return longest.windows

    def _claim(self, blob: CachedBlob, after: int, count: int) -> list[ClaimedRun]:
        """The next *count* windows from chunk *after* on, fewer where there is less to have."""
        runs: list[ClaimedRun] = []
        try:
            for _ in range(count):
                first = next_missing(blob, after, after + PASSED_MAX)
                if first == after + PASSED_MAX:
                    break
                run = claim_run(blob, first, self._batch_size)
                if run is None:
                    break
                runs.append(run)
                after = run.after
        except Exception:  # not what the reader asked for: its own fetch goes on
            logger.exception("nothing is read ahead here")
            while runs:
                runs.pop().give_up()
        return runs

    def _hand_over(self, run: ClaimedRun) -> None:
        self._line.append(run)
        if self._threads - self._busy >= len(self._line):
            self._changed.notify()
            return
        try:
            threading.Thread(target=self._run, name="ahead", daemon=True).start()
        except (RuntimeError, MemoryError):  # no more threads
            self._line.pop()
            run.give_up()
        else:
            self._threads += 1

    # --- the threads

    def _run(self) -> None:
        while (run := self._next()) is not None:
            try:
                run.fill(self._batch_size)
            except (BackendError, BlobCorrupt) as exc:
                logger.info("what was read ahead did not come: %s", exc)
                self._forget()
            except Exception:
                logger.exception("what was read ahead could not be kept")
                self._forget()
            with self._changed:
                self._busy -= 1

    def _next(self) -> ClaimedRun | None:
        """What to get next; None when the thread is to end."""
        with self._changed:
            waited = True
            while not self._line:
                if self._closed or not waited:
                    self._threads -= 1
                    return None
                waited = self._changed.wait(IDLE_SECONDS)
            self._busy += 1
            return self._line.popleft()

    def _forget(self) -> None:
        """Fetches ahead fail: let readers meet what is wrong, in rows that begin anew."""
        with self._changed:
            self._rows.clear()
