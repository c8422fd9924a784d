"""A reader that gets one small range of a blob whole, for who asks for it in parts.

Header and array of a blob's table of chunks lie side by side: asked for by themselves they would
cost a remote blob a second round trip before its first byte.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.backend.interface import BlobReader

if TYPE_CHECKING:
    from typing_extensions import Buffer

HELD_BYTES_MAX = 1 << 20  # more is left where it is: reading it in parts bounds memory


class HeldRange(BlobReader):
    """*reader*, with its *size* bytes at *offset* read by one request when the first are wanted."""

    def __init__(self, reader: BlobReader, offset: int, size: int) -> None:
        self._reader = reader
        self._offset = offset
        self._size = size if size <= HELD_BYTES_MAX else 0
        self._held: bytearray | None = None

    def size(self) -> int:
        """That of the blob."""
        return self._reader.size()

    def read_into(self, buffer: Buffer, offset: int, *, background: bool = False) -> None:
        """Fill *buffer*, from memory where the held range has all of it."""
        target = memoryview(buffer).cast("B")
        begin = offset - self._offset
        if begin < 0 or len(target) > self._size - begin:
            self._reader.read_into(buffer, offset, background=background)
            return
        if self._held is None:
            held = bytearray(self._size)
            self._reader.read_into(held, self._offset, background=background)
            self._held = held
        target[:] = memoryview(self._held)[begin : begin + len(target)]

    def close(self) -> None:
        """The reader stays its owner's."""
