"""Files that a build makes: nothing half-made stays under a final name.

In a directory a file is written under a temporary name and gets its own when it is complete; a
file whose path the user chose is written in place, as it may be a FIFO that somebody reads.
"""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nydusd.base.errors import BuildError

FILE_MODE = 0o666  # before the umask
IOV_MAX = 1024


class OutputFile:
    """One file being written, from its first byte to its last.

    Either *path* is the file or *directory* is where it gets a name in `finish`. With *is_stream*
    a file at *path* is not truncated: it may be a FIFO. Used by one thread at a time.
    """

    def __init__(
        self, path: Path | None, directory: Path | None = None, is_stream: bool = False
    ) -> None:
        self.path = path
        self.directory = directory
        self._temporary: Path | None = None
        try:
            if path is not None:
                flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (0 if is_stream else os.O_TRUNC)
                self._fd = os.open(path, flags, FILE_MODE)
            elif directory is not None:
                self._temporary = directory / f".nydus-image-{os.urandom(8).hex()}"
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(self._temporary, flags, FILE_MODE)
            else:
                raise BuildError("neither a file nor a directory to write to")
        except OSError as exc:
            raise BuildError(f"cannot write {path or directory}: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        """The file itself; it is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the file, whatever happened."""
        self.close()

    def write(self, buffers: Sequence[memoryview | bytes]) -> None:
        """Append all of *buffers*; `BuildError` when the disk refuses."""
        try:
            for first in range(0, len(buffers), IOV_MAX):
                pending = list(buffers[first : first + IOV_MAX])
                while pending:
                    written = os.writev(self._fd, pending)
                    while pending and written >= len(pending[0]):
                        written -= len(pending[0])
                        del pending[0]
                    if written:
                        pending[0] = memoryview(pending[0])[written:]
        except OSError as exc:
            raise BuildError(f"cannot write {self.path or self.directory}: {exc.strerror}") from exc

    def finish(self, name: str) -> Path:
        """The final path of the complete file, which is called *name* in a directory.

        A file of that name which is there already stays: names are digests.
        """
        if self._temporary is None or self.directory is None:
            assert self.path is not None
            return self.path
        final = self.directory / name
        try:
            if not final.exists():
                self._temporary.rename(final)
                self._temporary = None
        except OSError as exc:
            raise BuildError(f"cannot name {final}: {exc.strerror}") from exc
        return final

    def close(self) -> None:
        """Close the file; a temporary one that was not finished is removed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self._temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                self._temporary.unlink()
            self._temporary = None
