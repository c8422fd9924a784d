"""Readers of mounted images that compare every byte; processes of `perf.soak`.

`python -m perf.soak_reader FOLDER FIRST COUNT READERS PAUSE`: *COUNT* threads, numbered from
*FIRST* of *READERS*, read until the run's board (see `Board`) says stop. Each takes an image, then
a whole file of it, a range, or names, and compares them with the tree that the image was made of.
What is wrong goes to standard output, a line each.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import random
import struct
import sys
import threading
import time
from pathlib import Path

SLOT = struct.Struct("<QQQ")  # reads, bytes, errors of one reader
HEAD_BYTES = 64  # stop, then one byte an image: leave it alone
MOST_RANGE_BYTES = 256 << 10
DROP_PART = 0.5  # of opened files whose pages are dropped first
SHOWN = 5  # errors of one reader that are told


class Board:
    """What all processes of a run share: who is to stop, which image rests, and the counts."""

    def __init__(self, path: Path, readers: int) -> None:
        size = HEAD_BYTES + readers * SLOT.size
        with path.open("a+b") as file:
            file.truncate(size)
            self._memory = mmap.mmap(file.fileno(), size)
        self._readers = readers

    @property
    def stop(self) -> bool:
        """Whether the readers are to end."""
        return self._memory[0] != 0

    def end(self) -> None:
        """Tell the readers to end."""
        self._memory[0] = 1

    def rests(self, image: int) -> bool:
        """Whether nobody may go to *image* now."""
        return self._memory[1 + image] != 0

    def rest(self, image: int, on: bool) -> None:
        """Keep readers from *image*, or let them go there again."""
        self._memory[1 + image] = on

    def note(self, reader: int, counts: tuple[int, int, int]) -> None:
        """Set the counts of *reader*: only that one writes them."""
        SLOT.pack_into(self._memory, HEAD_BYTES + reader * SLOT.size, *counts)

    def counts(self) -> tuple[int, int, int]:
        """Reads, bytes and errors of all readers so far."""
        slots = SLOT.iter_unpack(self._memory[HEAD_BYTES:])
        reads, size, errors = (sum(column) for column in zip(*slots, strict=True))
        return reads, size, errors


def lock_file(folder: Path, image: int) -> Path:
    """The file that readers of *image* hold a shared lock on, and who changes it an exclusive."""
    return folder / f"lock{image}"


class Reader:
    """One reader: *number* of all, with its own sequence of random choices."""

    def __init__(self, folder: Path, number: int, board: Board, pause: float) -> None:
        self._board = board
        self._number = number
        self._pause = pause
        self._random = random.Random(number)
        self._trees = sorted((folder / "trees").iterdir())
        self._mounts = folder / "mnt"
        self._files = [
            sorted(str(path.relative_to(tree)) for path in tree.rglob("*") if path.is_file())
            for tree in self._trees
        ]
        self._locks = [
            os.open(lock_file(folder, image), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            for image in range(len(self._trees))
        ]
        self._reads = self._bytes = self._errors = 0

    def run(self) -> None:
        """Read until the board says stop."""
        while not self._board.stop:
            image = self._random.randrange(len(self._trees))
            if self._board.rests(image):
                continue
            fcntl.flock(self._locks[image], fcntl.LOCK_SH)
            try:
                self._visit(image)
            finally:
                fcntl.flock(self._locks[image], fcntl.LOCK_UN)
            self._board.note(self._number, (self._reads, self._bytes, self._errors))
            time.sleep(self._random.uniform(0, 2 * self._pause))

    def _visit(self, image: int) -> None:
        """One thing that a user of the image does, if it does not rest meanwhile."""
        if self._board.rests(image):
            return
        name = self._random.choice(self._files[image])
        try:
            wrong = self._compare(image, name)
        except OSError as exc:
            wrong = f"{exc.strerror} ({exc.errno})"
        self._reads += 1
        if wrong:
            self._errors += 1
            if self._errors <= SHOWN:
                line = f"reader {self._number}: {self._trees[image].name}/{name}: {wrong}"
                sys.stdout.write(line + "\n")
                sys.stdout.flush()

    def _compare(self, image: int, name: str) -> str:
        """What is wrong with the file *name* of *image*, or ""."""
        source, served = (root / name for root in (self._trees[image], self._mount(image)))
        size = source.stat().st_size
        if served.stat().st_size != size:
            return f"{served.stat().st_size} bytes long, {size} expected"
        way = self._random.random()
        if way < 0.1:
            here, there = (names_beside(path) for path in (source, served))
            return "" if here == there else "other names beside it"
        start, count = 0, size
        if way < 0.6 and size:
            start = self._random.randrange(size)
            count = min(size - start, self._random.randrange(1, MOST_RANGE_BYTES))
        wanted = read(source, start, count, drop=False)
        found = read(served, start, count, drop=self._random.random() < DROP_PART)
        self._bytes += len(found)
        if found == wanted:
            return ""
        at = next(
            (n for n, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]),
            min(len(found), len(wanted)),
        )
        return f"{len(found)} bytes at {start} of {count}, the first wrong one at {start + at}"

    def _mount(self, image: int) -> Path:
        return self._mounts / self._trees[image].name


def names_beside(path: Path) -> list[str]:
    """The names in the directory of *path*."""
    return sorted(each.name for each in path.parent.iterdir())


def read(path: Path, start: int, count: int, *, drop: bool) -> bytes:
    """*count* bytes of *path* from *start* on; *drop*: not those that the kernel still has."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if drop:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        parts = []
        while count:
            part = os.pread(fd, count, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
            count -= len(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def main() -> None:
    """Read as the command line says."""
    folder, first, count, readers, pause = sys.argv[1:]
    board = Board(Path(folder) / "board", int(readers))
    numbers = range(int(first), int(first) + int(count))
    threads = [
        threading.Thread(target=Reader(Path(folder), number, board, float(pause)).run)
        for number in numbers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
