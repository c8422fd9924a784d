"""A cache file of the kernel's, as far as a daemon may touch it: written in pages, never read.

The descriptor takes writes whose place, size and memory lie on pages (the kernel passes them on as
direct I/O), and tells where data and holes are (`lseek`). Any thread.
"""

import errno
import mmap
import os
from collections.abc import Sequence
from typing import Final

PAGE_BYTES: Final = 4096


def page_end(size: int) -> int:
    """*size* up to the next page."""
    return (size + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1)


def first_hole(fd: int, offset: int, end: int) -> int:
    """Where the first hole at or after *offset* begins; *end* when there is none before it."""
    try:
        return min(end, os.lseek(fd, offset, os.SEEK_HOLE))
    except OSError as exc:
        if exc.errno in (errno.ENXIO, errno.EINVAL):  # past the file's end; not told here
            return offset
        raise


def write_pages(fd: int, offset: int, pieces: Sequence[tuple[int, bytes]], end: int) -> None:
    """Write [*offset*, *end*), both on pages: *pieces* (where, what), and zeros between them.

    `OSError` when not all of it is taken.
    """
    size = end - offset
    with mmap.mmap(-1, size) as pages:  # memory on pages, and zero
        for at, data in pieces:
            pages[at - offset : at - offset + len(data)] = data
        with memoryview(pages) as whole:
            written = 0
            while written < size:
                with whole[written:] as rest:
                    n = os.pwrite(fd, rest, offset + written)
                if n <= 0 or n % PAGE_BYTES:
                    raise OSError(errno.EIO, f"{n} bytes of {size - written} taken")
                written += n
