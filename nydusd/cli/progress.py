"""How far a build has come, on a terminal."""

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self, TextIO

INTERVAL_S: Final = 0.2
MIB: Final = 1 << 20
USUAL_WIDTH: Final = 80  # of terminals that do not tell


class ProgressLine:
    """One line that is written over again while its block runs; nothing unless on a terminal.

    *counts* gives files and bytes so far; it is called in a thread of the line's own.
    """

    def __init__(self, counts: Callable[[], tuple[int, int]], stream: TextIO | None = None) -> None:
        self._counts = counts
        self._stream = sys.stderr if stream is None else stream
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Start to show the line."""
        if self._stream.isatty():
            self._thread = threading.Thread(target=self._run, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the line away."""
        if self._thread is not None:
            self._end.set()
            self._thread.join()

    def _run(self) -> None:
        begin = time.monotonic()
        while not self._end.wait(INTERVAL_S):
            files, size = self._counts()
            rate = size / MIB / (time.monotonic() - begin)
            line = f"{files} files, {size / MIB:.0f} MiB, {rate:.0f} MiB/s"
            width = os.get_terminal_size(self._stream.fileno()).columns or USUAL_WIDTH
            self._show(f"\r{line[: width - 1]}\x1b[K")
        self._show("\r\x1b[K")

    def _show(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
