"""Files that a build makes: nothing half-made stays under a final name.

A file is written under a temporary name beside its own, which it gets when it is complete; what
had that name stays as it was until then. A FIFO or device is written as it is, and so is a file
in a directory that takes no new ones.
"""

import contextlib
import os
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from nydusd.base.errors import BuildError

FILE_MODE = 0o666  # before the umask
IOV_MAX = 1024


class OutputFile:
    """One file being written, from its first byte to its last.

    Either *path* is the file or *directory* is where it gets a name in `finish`. Used by one
    thread at a time.
    """

    def __init__(self, path: Path | None, directory: Path | None = None) -> None:
        self.path = path
        self.directory = directory
        self.temporary: Path | None = None  # absolute, until the file is finished
        self._final: Path | None = None
        self._mode: int | None = None  # of the file that is replaced
        try:
            if path is not None:
                self._fd = self._open_path(path)
            elif directory is not None:
                self._fd = self._open_temporary(directory)
            else:
                raise BuildError("neither a file nor a directory to write to")
        except OSError as exc:
            raise BuildError(f"cannot write {path or directory}: {exc.strerror}") from exc

    def _open_path(self, path: Path) -> int:
        """A descriptor for what becomes *path*."""
        in_place = os.O_WRONLY | os.O_CLOEXEC
        final = Path(os.path.realpath(path))
        try:
            mode = final.stat().st_mode
        except FileNotFoundError:
            mode = None
        if mode is not None and not stat.S_ISREG(mode):
            return os.open(path, in_place)
        if mode is not None and not os.access(final, os.W_OK):
            return os.open(path, in_place)  # the system's own words for why not
        try:
            fd = self._open_temporary(final.parent)
        except PermissionError:
            if mode is None:
                raise
            return os.open(path, in_place | os.O_TRUNC)
        self._final, self._mode = final, mode
        return fd

    def _open_temporary(self, directory: Path) -> int:
        fd, name = tempfile.mkstemp(prefix=".nydus-image-", dir=directory)
        self.temporary = Path(os.path.realpath(name))
        return fd

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

        A file that has this name already is replaced.
        """
        final = self._final
        if final is None and self.directory is not None and self.path is None:
            final = self.directory / name
        if self.temporary is not None and final is not None:
            try:
                os.fchmod(self._fd, self._permissions())
                self.temporary.rename(final)
            except OSError as exc:
                raise BuildError(f"cannot name {final}: {exc.strerror}") from exc
            self.temporary = None
        result = self.path or final
        assert result is not None
        return result

    def _permissions(self) -> int:
        if self._mode is not None:
            return stat.S_IMODE(self._mode)
        umask = os.umask(0)
        os.umask(umask)
        return FILE_MODE & ~umask

    def close(self) -> None:
        """Close the file; a temporary one that was not finished is removed."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if self.temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                self.temporary.unlink()
            self.temporary = None
