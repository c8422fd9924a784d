"""Blobs in the GPT partitions of a disk or an image of one, or a disk that is one blob.

Source of the rules: storage backends, localdisk. A partition tells its blob id by its name: whole
for the type *basic data*; for any other type followed by the 32 digits of its GUID, since a name
has room for 36 characters. A blob id is looked for as it is, then by its first 32 characters among
basic data partitions.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from typing import TYPE_CHECKING
from uuid import UUID

from nydusd.backend.gpt import BrokenTable, Partition, read_partitions
from nydusd.backend.interface import BlobBackend, BlobReader
from nydusd.base.errors import BackendError, ConfigError

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from nydusd.config.model import LocalDisk

BASIC_DATA = UUID("ebd0a0a2-b9e5-4433-87c0-68b6b72699c7")
SHORT_ID = 32
BLKSSZGET = 0x1268  # ioctl: bytes of a logical sector of a block device
SECTORS = (512, 4096)  # of images, which cannot be asked; the usual one first


class LocalDiskReader(BlobReader):
    """The bytes [*offset*, *offset* + *size*) of the disk *fd*, which becomes the reader's."""

    def __init__(self, fd: int, name: str, offset: int, size: int) -> None:
        self._fd = fd
        self._name = name
        self._offset = offset
        self._size = size

    def size(self) -> int:
        """Bytes of the partition or disk: the blob, and what is left behind it."""
        return self._size

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """Fill *buffer*; `BackendError` for a range that leaves the partition."""
        del background
        rest = memoryview(buffer).cast("B")
        if offset < 0 or offset > self._size or len(rest) > self._size - offset:
            raise BackendError(
                f"{self._name} has {self._size} bytes, {len(rest)} at {offset} were asked for"
            )
        at = self._offset + offset
        try:
            while rest:
                n = os.preadv(self._fd, [rest], at)
                if n == 0:
                    raise BackendError(f"{self._name}: the disk ends at {at}")
                rest = rest[n:]
                at += n
        except OSError as exc:
            raise BackendError(f"{self._name}, {len(rest)} bytes at {offset}: {exc}") from exc

    def close(self) -> None:
        """Close the reader's descriptor of the disk."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class LocalDiskBackend(BlobBackend):
    """Opens the disk of *config* and reads its table; `ConfigError` when it cannot be used.

    With `disable_gpt` the disk from its first byte on is the blob, whatever id is asked for.
    """

    def __init__(self, config: LocalDisk) -> None:
        self._path = config.device_path
        self._fd = open_disk(config.device_path)
        try:
            self._size = os.lseek(self._fd, 0, os.SEEK_END)
            self._blobs = None if config.disable_gpt else self._scan()
        except OSError as exc:
            self.close()
            raise ConfigError(f"localdisk: {self._path} cannot be read: {exc}") from exc
        except BaseException:
            self.close()
            raise

    def _scan(self) -> dict[str, Partition]:
        """The partitions by blob id."""
        problems = []
        for sector in sector_sizes(self._fd):
            try:
                found = read_partitions(self._read, self._size, sector)
            except BrokenTable as exc:
                problems.append(f"in sectors of {sector} bytes, {exc}")
                continue
            return self._by_blob_id(found)
        raise ConfigError(
            f"localdisk: {self._path} has no usable partition table ({'; '.join(problems)}); "
            "a disk that is one blob needs `disable_gpt`"
        )

    def _by_blob_id(self, partitions: list[Partition]) -> dict[str, Partition]:
        blobs: dict[str, Partition] = {}
        for partition in partitions:
            blob_id = partition.name
            if partition.kind != BASIC_DATA:
                blob_id += partition.guid.hex
            other = blobs.setdefault(blob_id, partition)
            if blob_id and other is not partition:
                raise ConfigError(
                    f"localdisk: {self._path}: partitions {other.number} and {partition.number} "
                    f"are both blob {blob_id}"
                )
        blobs.pop("", None)  # basic data without a name: somebody's, but no blob
        return blobs

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def reader(self, blob_id: str) -> LocalDiskReader:
        """The blob's partition, or the disk; `BackendError` when no partition has it."""
        if self._blobs is None:
            return LocalDiskReader(os.dup(self._fd), f"disk {self._path}", 0, self._size)
        partition = self._blobs.get(blob_id)
        if partition is None and len(blob_id) > SHORT_ID:
            partition = self._blobs.get(blob_id[:SHORT_ID])
            if partition is not None and partition.kind != BASIC_DATA:
                partition = None
        if partition is None:
            raise BackendError(
                f"blob {blob_id[:80]!a} is in none of the {len(self._blobs)} partitions of "
                f"{self._path}"
            )
        name = f"partition {partition.number} of {self._path}"
        return LocalDiskReader(os.dup(self._fd), name, partition.offset, partition.size)

    def close(self) -> None:
        """Close the disk; readers have descriptors of their own."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def open_disk(path: str) -> int:
    """A descriptor of the disk or image at *path*; `ConfigError` when it is neither."""
    if not path:
        raise ConfigError("backend localdisk: `device_path` is not set")
    try:
        # Not to wait for the other end of a FIFO.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigError(f"localdisk: invalid disk device path {path}, {reason}") from exc
    mode = os.fstat(fd).st_mode
    if not (stat.S_ISBLK(mode) or stat.S_ISREG(mode)):
        os.close(fd)
        raise ConfigError(f"localdisk: {path} is neither a block device nor a file")
    return fd


def sector_sizes(fd: int) -> tuple[int, ...]:
    """Bytes that a sector of the disk may have: what the device says, else what is usual."""
    if stat.S_ISBLK(os.fstat(fd).st_mode):
        answer = fcntl.ioctl(fd, BLKSSZGET, bytes(4))
        (sector,) = struct.unpack("<i", answer)
        return tuple(dict.fromkeys((sector, *SECTORS)))
    return SECTORS
