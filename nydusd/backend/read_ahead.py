"""A blob as a stream over ranged requests: the next long range is on its way while one is used.

Two requests under way keep the line full whatever its latency is, and each of them has the retries,
routes and logins of any other read; a single reply for a whole blob would have to begin anew with
each of these.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE_BYTES = 8 << 20  # one request; what is in memory is `AHEAD` + 1 of them
AHEAD = 2  # requests under way


class ReadInto(Protocol):
    """How a range of the blob is read."""

    def __call__(self, buffer: bytearray, offset: int, *, background: bool) -> None:
        """Fill *buffer* with the bytes at *offset*; `BackendError`."""


def read_ahead(read_into: ReadInto, offset: int, size: int) -> Iterator[bytearray]:
    """The bytes from *offset* to *size*, in pieces; `BackendError` where one cannot be had.

    Closing the iterator drops what has not begun; requests under way end by themselves.
    """

    def read(at: int) -> bytearray:
        piece = bytearray(min(PIECE_BYTES, size - at))
        read_into(piece, at, background=True)
        return piece

    pending: deque[Future[bytearray]] = deque()
    pool = ThreadPoolExecutor(AHEAD, thread_name_prefix="stream")
    try:
        while offset < size or pending:
            while offset < size and len(pending) < AHEAD:
                pending.append(pool.submit(read, offset))
                offset += PIECE_BYTES
            yield pending.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
