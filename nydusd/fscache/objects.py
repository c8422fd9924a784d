"""Objects that the kernel has open: each fills ranges of its cache file from where the data is.

`fill` is called by the workers of `fscache.server`, several at once. The descriptor is closed when
the kernel has closed the object and the last call has ended: its number could be another file's
otherwise.
"""

import os
import threading
from pathlib import Path
from typing import Final, Protocol

from nydusd.base.errors import BlobCorrupt
from nydusd.cache.blob_range import chunks_in_range
from nydusd.cache.device import Device
from nydusd.cache.span_reader import read_spans
from nydusd.fscache.cache_file import PAGE_BYTES, first_hole, page_end, write_pages
from nydusd.fscache.sources import DataSource
from nydusd.rafs.records import Span

# What is brought along with a read, so that the kernel asks less often. Whole chunks; one is 16 MiB
# at most.
WINDOW_BYTES: Final = 1 << 20
SOMEBODY_ELSE_SECONDS: Final = 30.0  # longest wait for a chunk that another worker gets


class CacheObject(Protocol):
    """What the kernel has open."""

    name: str
    size: int  # bytes, as the kernel is told

    def fill(self, fd: int, offset: int, length: int) -> None:
        """Write what is missing of the range; `OSError`, `NydusError`."""

    def close(self) -> None:
        """Give up what `fill` needs; nobody calls it any more."""


class BootstrapObject:
    """The bootstrap at *path*, open until `close`; `OSError`."""

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        self.size = os.fstat(self._fd).st_size

    def fill(self, fd: int, offset: int, length: int) -> None:
        """Copy what is missing of the range."""
        limit = page_end(self.size)
        at = offset & ~(PAGE_BYTES - 1)
        end = limit if length > limit - min(offset, limit) else page_end(offset + length)
        while at < end and (at := first_hole(fd, at, end)) < end:
            data = os.pread(self._fd, min(WINDOW_BYTES, end - at), at)
            if not data:
                raise OSError(5, f"{self.name} has become shorter")
            write_pages(fd, at, [(at, data)], at + page_end(len(data)))
            at += page_end(len(data))

    def close(self) -> None:
        """Close the bootstrap."""
        os.close(self._fd)


class DataObject:
    """The data blob of *source*, opened when it is first needed."""

    def __init__(self, source: DataSource) -> None:
        self.name = source.blob_id
        self.size = source.size
        self._source = source
        self._lock = threading.Lock()
        self._device: Device | None = None  # guarded by self._lock
        self._changed = threading.Condition()
        self._taken: set[int] = set()  # chunks that a worker gets now; guarded by self._changed

    def fill(self, fd: int, offset: int, length: int) -> None:
        """Get and write the chunks that have missing bytes of the range, and some after them."""
        limit = page_end(self.size)
        at = offset & ~(PAGE_BYTES - 1)
        end = limit if length > limit - min(offset, limit) else page_end(offset + length)
        while at < end and (at := first_hole(fd, at, end)) < end:
            at = self._fill_from(fd, at)

    def _fill_from(self, fd: int, at: int) -> int:
        """Fill from page *at*, a hole, on; where what is filled now ends."""
        device = self._opened()
        blob = device.blobs[self._source.blob_index]
        assert blob is not None
        limit = page_end(self.size)
        window = min(WINDOW_BYTES, limit - at)
        spans = chunks_in_range(blob, self._source.blob_index, at, window)
        if not spans or spans[0].uncompressed_offset > at:  # between chunks there is nothing
            end = spans[0].uncompressed_offset if spans else at + window
            write_pages(fd, at, [], check_page(self.name, end))
            return end
        mine = self._take(spans)
        if not mine:
            return at  # somebody else got it meanwhile: the caller looks again
        try:
            return self._write(fd, device, mine, limit)
        finally:
            with self._changed:
                self._taken.difference_update(span.chunk_index for span in mine)
                self._changed.notify_all()

    def _take(self, spans: list[Span]) -> list[Span]:
        """The first of *spans* up to one that another worker gets; none when it gets the first."""
        with self._changed:
            if spans[0].chunk_index in self._taken:
                self._changed.wait(SOMEBODY_ELSE_SECONDS)
                return []
            mine = []
            for span in spans:
                if span.chunk_index in self._taken:
                    break
                mine.append(span)
            self._taken.update(span.chunk_index for span in mine)
            return mine

    def _write(self, fd: int, device: Device, spans: list[Span], limit: int) -> int:
        for span in spans:
            check_page(self.name, span.uncompressed_offset)
        start, last = spans[0].uncompressed_offset, spans[-1]
        end = min(page_end(last.uncompressed_offset + last.uncompressed_size), limit)
        data = read_spans(device, spans)
        pieces, done = [], 0
        for span in spans:
            pieces.append((span.uncompressed_offset, data[done : done + span.length]))
            done += span.length
        write_pages(fd, start, pieces, end)
        return end

    def _opened(self) -> Device:
        with self._lock:
            if self._device is None:
                self._device = self._source.open()
            return self._device

    def close(self) -> None:
        """Give the blob back."""
        with self._lock:
            if self._device is not None:
                self._device.close()
                self._device = None


def check_page(name: str, offset: int) -> int:
    """*offset* if it lies on a page; `BlobCorrupt`: the kernel takes no other."""
    if offset % PAGE_BYTES:
        raise BlobCorrupt(f"blob {name}: a chunk at {offset}, which is not on a page")
    return offset
