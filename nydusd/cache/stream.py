"""Filling the cache from a stream of the whole blob: its chunks are kept as they pass.

Few long requests instead of many: the blob comes as fast as the line is, whatever its latency.
Needs the blob's CI array (v6). Order, tries and pauses: spec,
prefetch (`stream_prefetch`). Runs on a thread of `cache.prefetch`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from nydusd.base.errors import BackendError
from nydusd.cache.fill import fill_stored, first_missing

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from nydusd.cache.cached_blob import CachedBlob

logger = logging.getLogger("nydusd")

TRIES_MAX = 10
PAUSE_SECONDS = 0.1  # times the number of the try
WINDOW_BYTES = 1 << 20  # collected before chunks are cut out


def stream_blob(blob: CachedBlob, stop: threading.Event, may_go_on: Callable[[int], bool]) -> int:
    """Keep every missing chunk of *blob*, from as few requests as the line allows.

    *may_go_on* is asked with the bytes of each piece, may wait, and ends the stream when false, as
    *stop* does. Bytes that came. `BackendError` when the stream broke off `TRIES_MAX` times.
    """
    tries = 0
    while not stop.is_set():
        offset = first_missing(blob)
        if offset is None or offset >= blob.info.data_size:
            break
        try:
            return _stream_from(blob, offset, stop, may_go_on)
        except BackendError as exc:
            tries += 1
            if tries >= TRIES_MAX:
                raise
            logger.info("stream of blob %s is tried again: %s", blob.info.blob_id, exc)
            stop.wait(PAUSE_SECONDS * tries)
    return 0


def _stream_from(
    blob: CachedBlob, offset: int, stop: threading.Event, may_go_on: Callable[[int], bool]
) -> int:
    """Bytes that came until the end, or until nothing more is wanted."""
    window = bytearray()
    start = offset  # of the window in the blob
    chunk = 0
    received = 0
    pieces = blob.reader.stream(offset)
    try:
        for piece in pieces:
            window += piece
            received += len(memoryview(piece))
            if len(window) >= WINDOW_BYTES:
                chunk, start = _keep(blob, chunk, start, window)
            if start >= blob.info.data_size:
                break
            if stop.is_set() or not may_go_on(len(memoryview(piece))):
                return received
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    _keep(blob, chunk, start, window)
    return received


def _keep(blob: CachedBlob, chunk: int, start: int, window: bytearray) -> tuple[int, int]:
    """Keep what is whole in *window*, and shorten it to what is still needed."""
    chunk, needed_from = fill_stored(blob, chunk, start, window)
    del window[: needed_from - start]
    return chunk, needed_from
