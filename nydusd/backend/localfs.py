"""Blobs as files: one file for every blob id, or a file per blob id in some folders.

Source of the rules: spec of the localfs backend. With several folders the first that has the
blob serves it. A blob id comes out of an image and cannot name a file outside the folders.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.backend.interface import BlobBackend, BlobReader
from nydusd.base.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from nydusd.config.model import LocalFs

BLOB_ID_BYTES = 255  # longest blob id (rafs-format: identity and sizes), and longest file name


class LocalFsReader(BlobReader):
    """One blob file, open for reading."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def size(self) -> int:
        """Bytes of the file now."""
        return os.fstat(self._fd).st_size

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """Fill *buffer*; a file that ends inside the range is a `BackendError`."""
        del background
        rest = memoryview(buffer).cast("B")
        at = offset
        try:
            while rest:
                n = os.preadv(self._fd, [rest], at)
                if n == 0:
                    raise BackendError(
                        f"blob file {self.path} ends at {self.size()}, "
                        f"{len(rest)} bytes at {at} were asked for"
                    )
                rest = rest[n:]
                at += n
        except (OSError, OverflowError) as exc:
            raise BackendError(f"blob file {self.path}, {len(rest)} bytes at {at}: {exc}") from exc

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def check_blob_id(blob_id: str) -> None:
    """`BackendError` when *blob_id* is not a plain file name."""
    if (
        blob_id in ("", ".", "..")
        or "/" in blob_id
        or "\0" in blob_id
        or len(os.fsencode(blob_id)) > BLOB_ID_BYTES
    ):
        raise BackendError(f"blob id {blob_id[:80]!r} is not a file name; the image is broken")


class LocalFsBackend(BlobBackend):
    """Opens blobs by *config*; `ConfigError` when it names neither a file nor a folder."""

    def __init__(self, config: LocalFs) -> None:
        if not config.blob_file and not config.dir:
            raise ConfigError("backend localfs: neither `blob_file` nor `dir` is set")
        self._file = Path(config.blob_file) if config.blob_file else None
        self._folders = [Path(folder) for folder in (config.dir, *config.alt_dirs) if folder]

    def reader(self, blob_id: str) -> LocalFsReader:
        """The blob's file, opened now; `BackendError` names every path that was tried."""
        check_blob_id(blob_id)
        paths = [self._file] if self._file else [folder / blob_id for folder in self._folders]
        failures = []
        for path in paths:
            try:
                return LocalFsReader(path)
            except OSError as exc:
                failures.append(f"{path} ({exc.strerror})")
        raise BackendError(f"blob {blob_id} cannot be opened: {', '.join(failures)}")
