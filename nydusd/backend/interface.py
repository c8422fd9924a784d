"""What every source of blob bytes offers: a reader for a blob id, a byte range from a reader.

Backends know nothing of what is in a blob. `open_backend` makes one from the configuration.
Readers are called by many threads at a time and wait without the GIL.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

STREAM_PIECE_BYTES = 1 << 20


class BlobReader(ABC):
    """One blob, to be read in ranges."""

    # Told of each try within a read: bytes asked for, seconds, whether it failed. Set before the
    # first read by whoever counts; only readers that try more than once call it.
    counts_attempts = False
    on_attempt: Callable[[int, float, bool], None] | None = None

    @abstractmethod
    def size(self) -> int:
        """Bytes of the blob; `BackendError` when that cannot be found out."""

    @abstractmethod
    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """Fill the writable *buffer* with the bytes at *offset*; *background*: nobody waits for it.

        `BackendError` when not every byte could be had: the end of the blob inside the range is
        an error too. The content of *buffer* is undefined then.
        """

    def distrust(self, offset: int, size: int) -> bool:
        """Hear that what was read of these bytes is corrupt; whether asking again may help.

        It may where a blob has several sources: the next read asks another one.
        """
        del offset, size
        return False

    def stream(self, offset: int) -> Iterator[Buffer]:
        """The bytes from *offset* to the end of the blob, in pieces as they come.

        A piece is valid until the next one is asked for. `BackendError` when it breaks off; closing
        the iterator gives up the rest. Backends with latency do better than this, which asks for
        piece after piece.
        """
        size = self.size()
        piece = bytearray(STREAM_PIECE_BYTES)
        while offset < size:
            part = memoryview(piece)[: size - offset]
            self.read_into(part, offset)
            yield part
            offset += len(part)

    @abstractmethod
    def close(self) -> None:
        """Give back what the reader holds; nobody reads any more."""


class BlobBackend(ABC):
    """Where the blobs of an image come from."""

    @abstractmethod
    def reader(self, blob_id: str) -> BlobReader:
        """A reader for *blob_id*, which is not trusted; `BackendError` when there is no such blob.

        The caller closes it.
        """

    def change_setting(self, name: str, value: str) -> bool:
        """Take on a new *value* from the next request on; whether there is such a setting.

        Names are those of the API: `registry_auth`, `proxy_url`, `dragonfly_scheduler_endpoint`.
        """
        return False

    def close(self) -> None:  # noqa: B027 - most backends hold nothing of their own
        """Give back what the backend holds beside its readers."""
