"""A mounted image that may be anything, listed and read whole, with an eye on the clock.

What a file shows is held against the digests that the image itself has for it: bytes that a digest
covers are right or are an error. Errors of single names are what hostile images are answered with;
they are counted.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from blake3 import blake3

from nydusd.base.errors import NydusError
from nydusd.rafs.blobs import Digester
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.chunk_records import chunk_table, digest_and_size, place_of

SLOW_SECONDS = 5.0  # of one request
NAMES_MAX = 1000  # of one image
READ_MAX = 1 << 20  # bytes of one file; of a larger one its head, middle and end
HOLE = 1
# What a broken image may be answered with, and what a name that is too deep gets from the kernel.
ERRORS = {errno.EIO, errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ERANGE}
ERRORS |= {errno.EINVAL, errno.ENODATA, errno.EOVERFLOW, errno.ENXIO, errno.E2BIG, errno.EISDIR}
ERRORS |= {errno.ESTALE}

Answer = TypeVar("Answer")


class Watch:
    """Ends what hangs: *kill* is called when one request takes many times too long."""

    def __init__(self, kill: Callable[[], None]) -> None:
        self.slow: list[str] = []
        self._began: tuple[str, float] | None = None
        self._kill = kill
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def timed(self, what: str, ask: Callable[[], Answer]) -> Answer:
        """The answer of *ask*; told as slow when it was."""
        began = time.monotonic()
        self._began = (what, began)
        try:
            return ask()
        finally:
            self._began = None
            seconds = time.monotonic() - began
            if seconds > SLOW_SECONDS:
                self.slow.append(f"{what} took {seconds:.1f} s")

    def _run(self) -> None:
        while not self._end.wait(0.5):
            running = self._began
            if running is not None and time.monotonic() - running[1] > 6 * SLOW_SECONDS:
                self.slow.append(f"{running[0]} hung")
                self._kill()
                return

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@dataclass
class Seen:
    """What came of mounted images."""

    names: int = 0
    files: int = 0
    verified: int = 0  # chunks that a digest covers
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Reader:
    """Reads mounts under *watch* into *seen*."""

    def __init__(self, watch: Watch, seen: Seen) -> None:
        self.watch = watch
        self.seen = seen

    def ask(self, what: str, question: Callable[[], Answer]) -> Answer | None:
        """An answer, or None for an error that may be."""
        try:
            return self.watch.timed(what, question)
        except OSError as error:
            self.seen.errors[errno.errorcode.get(error.errno or 0, "?")] += 1
            if error.errno not in ERRORS:
                self.seen.wrong.append(f"{what}: {error!r}")
            return None

    def read_image(self, root: str, bootstrap: Bootstrap, good: Bootstrap) -> None:
        """List and read everything at *root*, where *bootstrap* is mounted, a mutant of *good*."""
        oracle = Oracle(bootstrap, good)
        waiting = [(root, bootstrap.root_ino)]
        names = 0
        while waiting and names < NAMES_MAX:
            folder, ino = waiting.pop()
            for name in self.ask(f"list {folder}", partial(os.listdir, folder)) or []:
                names += 1
                if names >= NAMES_MAX:
                    break
                path = f"{folder}/{name}"
                info = self.ask(f"stat {path}", lambda at=path: os.lstat(at))
                if info is None:
                    continue
                self._read_attributes(path, info)
                below = self._number(bootstrap, ino, name)
                if stat.S_ISDIR(info.st_mode):
                    waiting.append((path, below))
                elif stat.S_ISREG(info.st_mode):
                    self._read_file(path, info.st_size, below, oracle)
        self.seen.names += names

    @staticmethod
    def _number(bootstrap: Bootstrap, parent: int, name: str) -> int:
        with suppress(OSError, NydusError):
            return bootstrap.child(parent, os.fsencode(name))
        return 0

    def _read_attributes(self, path: str, info: os.stat_result) -> None:
        keys = self.ask(f"xattrs {path}", lambda: os.listxattr(path, follow_symlinks=False))
        for key in keys or []:
            self.ask(
                f"{key} of {path}", lambda key=key: os.getxattr(path, key, follow_symlinks=False)
            )
        if stat.S_ISLNK(info.st_mode):
            self.ask(f"target of {path}", lambda: os.readlink(path))  # noqa: PTH115

    def _read_file(self, path: str, size: int, ino: int, oracle: Oracle) -> None:
        fd = self.ask(f"open {path}", lambda: os.open(path, os.O_RDONLY | os.O_NONBLOCK))
        if fd is None:
            return
        self.seen.files += 1
        parts = [0] if size <= READ_MAX else [0, size // 2, size - READ_MAX // 2]
        try:
            for offset in parts:
                data = self._read_range(path, fd, offset, min(READ_MAX, size - offset))
                if data:
                    self.seen.verified += oracle.check(path, ino, offset, data, self.seen.wrong)
        finally:
            os.close(fd)

    def _read_range(self, path: str, fd: int, offset: int, size: int) -> bytes:
        """The bytes of a range up to the first error: a read is short where the next one fails."""
        got = b""
        while len(got) < size:
            at = offset + len(got)
            more = self.ask(f"read {path} at {at}", partial(os.pread, fd, size - len(got), at))
            if not more:
                if more is not None:
                    self.seen.wrong.append(f"{path}: ends at {at}, {size} bytes at {offset} asked")
                break
            got += more
        return got


class Oracle:
    """What the digests of an image say of its files, by way of Python's own hashes.

    The blob of a mutant is whole. v5: digests stand in each file's chunk records, the mutant's own
    count. v6: a chunk is a number in the blob, whose bytes the *good* image's chunk table tells.
    """

    def __init__(self, bootstrap: Bootstrap, good: Bootstrap) -> None:
        self.bootstrap = bootstrap
        self.digester = good.blobs[0].digester if good.blobs else Digester.BLAKE3
        if bootstrap.version == 5:
            self.digester = Digester.SHA256 if bootstrap.flags & 8 else Digester.BLAKE3
        self.digests: dict[tuple[int, int], tuple[bytes, int]] = {}
        if good.version == 6:
            self.digests = {
                place_of(record): digest_and_size(record) for record in chunk_table(good)
            }

    def _digest(self, data: bytes) -> bytes:
        if self.digester == Digester.SHA256:
            return hashlib.sha256(data).digest()
        return blake3(data).digest()

    def check(self, path: str, ino: int, offset: int, data: bytes, wrong: list[str]) -> int:
        """How many whole chunks of *data* have the digest that the image tells; lines if not."""
        at = verified = 0
        spans: list[Any] = []
        with suppress(OSError, NydusError):
            spans = list(self.bootstrap.chunk_spans(ino, offset, len(data)))
        for span in spans:
            piece = data[at : at + span.length]
            at += span.length
            if span.flags & HOLE:
                if any(piece):
                    wrong.append(f"{path}: a hole at {offset + at} is not empty")
                continue
            digest, size = span.digest, span.uncompressed_size
            if digest is None:
                digest, size = self.digests.get((span.blob_index, span.chunk_index), (None, 0))
            if digest is None or span.offset or span.length != size:
                continue
            if self._digest(piece) != digest:
                wrong.append(f"{path}: chunk {span.chunk_index} at {offset + at} is wrong")
            verified += 1
        return verified
