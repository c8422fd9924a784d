"""Which chunks of a data file have reached the disk: what a power cut leaves to be believed.

Ready bits are set as soon as the bytes are in the page cache, and the kernel writes both back in
any order. After a power cut a bit may stand for bytes that never reached the disk. So each data
file has a record, `durable/ID.durable_map`: the boot in which the chunk map was last
sorted out, and a bit for each chunk that an fdatasync has covered. In the same boot every bit of
the chunk map counts; in a later one only what the record has too (docs/decisions/0015).

`open_record` is called while a blob is opened; `cache.syncer` keeps the records of a process up to
date.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.base.mapping import Mapping
from nydusd.base.record import NamedTuple
from nydusd.cache.blobfile import identity_of
from nydusd.cache.chunkmap import (
    HEADER_BYTES,
    ChunkMap,
    bitmap_bytes,
    both,
    create_header,
    either,
    view_chunk_map,
)
from nydusd.cache.syncer import SYNCER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from nydusd.base.inotify import Watches
    from nydusd.cache.blobfile import BlobFile

logger = logging.getLogger("nydusd")

MAGIC = b"NDDR"
VERSION = 1
# Magic, version, chunks, boot, then two identities (length and bytes): data file, chunk map.
LAYOUT = struct.Struct("<4sII16sH160sH160s")
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

LOCK_TIMEOUT_S = 2.0
LOCK_POLL_S = 0.002
# Bitmaps are copied whole when they are synced: 16 MiB for a blob of at least 512 GiB.
CHUNKS_MAX = 1 << 27


def boot_id() -> bytes:
    """16 bytes that are new with every boot of the kernel; zeros where it does not tell."""
    try:
        return bytes.fromhex(BOOT_ID.read_text().strip().replace("-", ""))
    except (OSError, ValueError):
        return bytes(16)


class Header(NamedTuple):
    """What a record says beside its bits."""

    chunks: int
    boot: bytes
    data: bytes  # identity of the data file that the bits are about
    chunk_map: bytes  # identity of the chunk map that was sorted out in that boot

    def pack(self) -> bytes:
        """The header as it stands in the file, without the zeros that follow."""
        return LAYOUT.pack(
            MAGIC, VERSION, self.chunks, self.boot,
            len(self.data), self.data, len(self.chunk_map), self.chunk_map,
        )  # fmt: skip


class BrokenRecord(Exception):
    """The file is not a record of this blob: what the chunk map says cannot be held against it."""


def read_header(fd: int, count: int) -> Header | None:
    """The header of the record *fd*; None for a file that its creator has only begun.

    `BrokenRecord` when it is of another length, another number of chunks, or no record at all.
    """
    size = os.fstat(fd).st_size
    head = os.pread(fd, LAYOUT.size, 0)
    if not any(head) and size in (0, HEADER_BYTES + bitmap_bytes(count)):
        return None
    if len(head) < LAYOUT.size or size != HEADER_BYTES + bitmap_bytes(count):
        raise BrokenRecord(f"{size} bytes")
    magic, version, chunks, boot, data_size, data, map_size, chunk_map = LAYOUT.unpack(head)
    if (magic, version, chunks) != (MAGIC, VERSION, count):
        raise BrokenRecord(f"it begins with {head[:12].hex()}")
    return Header(chunks, boot, data[:data_size], chunk_map[:map_size])


def write_header(fd: int, header: Header) -> None:
    """Make the record *fd* as long as it must be, and write *header* in one piece."""
    os.ftruncate(fd, HEADER_BYTES + bitmap_bytes(header.chunks))
    os.pwrite(fd, header.pack(), 0)


def read_bits(fd: int, count: int) -> bytes:
    """The bitmap of the record or chunk map *fd*, zeros where it ends early."""
    return os.pread(fd, bitmap_bytes(count), HEADER_BYTES).ljust(bitmap_bytes(count), b"\0")


def file_identity(path: Path) -> bytes:
    """Identity of the file at *path*; empty when there is none that can be opened."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return identity_of(fd)
    finally:
        os.close(fd)


class MapPaths(NamedTuple):
    """The small files that say what a data file has."""

    chunk_map: Path  # as the reference names it from 2.3 on
    older_name: Path  # as it did before: the same file, or one of its own
    record: Path


class Record:
    """The record of one blob while the blob is being opened; one thread, and one process at a time.

    `open_record` has made the chunk map at *paths* one that can be believed.
    """

    def __init__(self, fd: int, paths: MapPaths, count: int, file: BlobFile) -> None:
        self._fd = fd
        self._paths = paths
        self._count = count
        self._file = file

    def begin(self, chunks: ChunkMap) -> DurableRecord:
        """What keeps the record up to date from now on, for the map *chunks* that is open."""
        file = self._file
        names = (self._paths.chunk_map, self._paths.older_name)
        opened = [os.open(name, os.O_RDONLY | os.O_CLOEXEC) for name in names if name.exists()]
        folders = (self._paths.chunk_map.parent, self._paths.record.parent)
        opened += [os.open(folder, os.O_RDONLY | os.O_CLOEXEC) for folder in folders]
        opened.append(os.dup(self._fd))
        file.sync_first(opened)
        chunk_map = file_identity(self._paths.chunk_map)
        write_header(self._fd, Header(self._count, boot_id(), file.identity(), chunk_map))
        bits = ChunkMap(self._count, Mapping(self._fd, writable=True))
        if both(chunks.promises(), bits.promises()) != chunks.promises():
            file.note_unsynced()
        return DurableRecord(bits, chunks, file, self._paths)

    def close(self) -> None:
        """Let others open the blob."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._fd, fcntl.LOCK_UN)  # not by closing: the lock is its duplicate's too
        os.close(self._fd)


def open_record(paths: MapPaths, count: int, file: BlobFile) -> Record:
    """The record at *paths*, made when missing, with the chunk map sorted out by it.

    Promises that a power cut may have broken, or that are about another data file than *file*, are
    taken out of the chunk map: it is replaced, who has it open goes on with the old one. `OSError`
    where that cannot be done.
    """
    fd = lock_record(paths.record)
    try:
        try:
            header = read_header(fd, count)
        except BrokenRecord as exc:
            logger.warning(
                "%s is broken (%s): what the cache has is fetched again", paths.record, exc
            )
            fd = start_again(fd, paths, stale=(paths.chunk_map, paths.older_name))
            header = None
        if header is not None and header.data != file.identity():
            fd = start_again(fd, paths, stale=maps_of(header, paths))
        elif header is not None and header.boot != boot_id():
            sort_out(fd, paths, count)
        return Record(fd, paths, count, file)
    except BaseException:
        os.close(fd)
        raise


def lock_record(path: Path) -> int:
    """The record at *path*, made when missing and locked while a blob is opened.

    Daemons that start together would replace each other's chunk maps. One that hangs with the lock
    is not waited for long: without the lock chunks are fetched twice at the worst.
    """
    path.parent.mkdir(exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    deadline = time.monotonic() + LOCK_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in (errno.EWOULDBLOCK, errno.EINTR):
                break  # a file system without locks
            time.sleep(LOCK_POLL_S)
        else:
            if is_at(fd, path):
                break
            os.close(fd)  # replaced by who had the lock
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    return fd


def is_at(fd: int, path: Path) -> bool:
    """Whether *path* names the file *fd*."""
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def start_again(fd: int, paths: MapPaths, stale: Sequence[Path]) -> int:
    """A new record instead of *fd*, which is closed, without the chunk maps *stale*."""
    for path in (*stale, paths.record):
        path.unlink(missing_ok=True)
    os.close(fd)
    return lock_record(paths.record)


def maps_of(header: Header, paths: MapPaths) -> list[Path]:
    """The chunk maps that are about the data file of *header*, which is not there any more.

    One that was made after that file had gone is about the new one, and stays.
    """
    names = (paths.chunk_map, paths.older_name)
    return [path for path in names if file_identity(path) == header.chunk_map]


def sort_out(fd: int, paths: MapPaths, count: int) -> None:
    """Replace the chunk map by one that promises nothing but what the record *fd* has too.

    The new one is complete on the disk before it takes the name, and the record is told last: who
    dies in between leaves it to the next one.
    """
    promised = promised_bits(paths, count)
    durable = both(promised, read_bits(fd, count))
    if durable == promised:
        return
    lost = int.from_bytes(promised, "little").bit_count()
    lost -= int.from_bytes(durable, "little").bit_count()
    logger.info(
        "%s: %d chunks may not have reached the disk before the last boot and are fetched again",
        paths.chunk_map, lost,
    )  # fmt: skip
    draft = paths.chunk_map.with_name(f"{paths.chunk_map.name}_sorting")
    new = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        create_header(new, count)
        os.pwrite(new, durable, HEADER_BYTES)
        os.fsync(new)
    finally:
        os.close(new)
    draft.replace(paths.chunk_map)
    paths.older_name.unlink(missing_ok=True)


def promised_bits(paths: MapPaths, count: int) -> bytes:
    """What the chunk maps at *paths* promise, if any; `CacheError` for a broken one."""
    promised = bytes(bitmap_bytes(count))
    for path in (paths.chunk_map, paths.older_name):
        chunks = view_chunk_map(path, count)
        promised = either(promised, chunks.promises() or bytes(bitmap_bytes(count)))
        chunks.close()
    return promised


def view_trusted(paths: MapPaths, count: int, file: BlobFile) -> ChunkMap:
    """The chunk map of a directory that cannot be written, as far as it can be believed."""
    try:
        fd = os.open(paths.record, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        fd = -1
    try:
        header = read_header(fd, count) if fd >= 0 else None
        if header is not None and header.data != file.identity():
            return ChunkMap(count)
        if header is not None and header.boot != boot_id():
            return ChunkMap(count, Mapping(fd), writing=False)  # bits lie in both files alike
    except BrokenRecord:
        return ChunkMap(count)
    finally:
        if fd >= 0:
            os.close(fd)
    older = not paths.chunk_map.exists() and paths.older_name.exists()
    return view_chunk_map(paths.older_name if older else paths.chunk_map, count)


class DurableRecord:
    """The record of one blob that is open: its bits, and what they are about.

    `look` is called by `SYNCER`'s thread, `sync` by others as well, `close` by whoever closes the
    blob, before chunk map and data file.
    """

    def __init__(self, bits: ChunkMap, chunks: ChunkMap, file: BlobFile, paths: MapPaths) -> None:
        self._bits = bits
        self._record = paths.record
        maps = (paths.chunk_map, paths.older_name)
        self._maps = maps
        self._chunks = chunks
        self._file = file
        self._lock = threading.Lock()
        self._closed = False
        file.look_after_pages()
        SYNCER.add(self)

    def watch(self, watches: Watches) -> int:
        """Have the data file watched; the number of the watch, see `Watches.add`."""
        with self._lock:
            if self._closed:
                return -1
            number = self._file.watch(watches)
            self._file.has_shrunk()  # from now on
            return number

    def look(self, *, changed: bool) -> bool:
        """Notice that somebody cut, punched, deleted or replaced the data file.

        *changed*: the kernel says that it has been changed. False when this process has done so,
        which may hide what others did: look again when it writes no more.
        """
        with self._lock:
            if not (changed or self._closed):
                self._file.cool_pages()
            return self._closed or self._look(changed)

    def sync(self) -> None:
        """Have on the disk what was promised so far, and record it."""
        with self._lock:
            if not self._closed:
                self._sync()

    def drop(self, indexes: Sequence[int]) -> None:
        """Take the bits of the chunks *indexes* away, here and on the disk: their bytes may go.

        `OSError` when the disk does not take it; the bytes must stay then.
        """
        with self._lock:
            if self._closed:
                raise OSError(errno.ESTALE, "the blob is closed", self._file.path)
            self._bits.drop_promises(indexes)
            self._chunks.drop_promises(indexes)
            for path in (self._record, *self._maps):
                with contextlib.suppress(FileNotFoundError):
                    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                    try:
                        os.fsync(fd)
                    finally:
                        os.close(fd)

    def _look(self, changed: bool) -> bool:
        by_us = changed and self._file.take_stored()
        shrunk = self._file.has_shrunk()
        if not self._file.is_in_place():
            changed = False  # that its name has gone, or nobody will find it to change it
            if self._chunks.shared:
                # What is open is whole and goes on being used; the bits are not about it any more
                # for those who open the directory now.
                logger.warning("%s is not the file that is open any more", self._file.path)
                self._chunks.keep_to_itself()
        if shrunk or (changed and not by_us):
            # Each chunk is looked for again before it counts, and fetched when there is a hole.
            self._file.doubt_holes()
            self._chunks.look_again()
        return not by_us

    def _sync(self) -> None:
        if not (self._chunks.shared and self._file.take_unsynced()):
            return
        promised = self._chunks.promises()  # taken before the sync: it covers all of them
        try:
            self._file.sync()
        except OSError as exc:
            logger.warning("%s: %s; what it has is not used any more", self._file.path, exc)
            self._file.stop()
            self._chunks.forget()
            for path in self._maps:
                with contextlib.suppress(OSError):
                    path.unlink()
            return
        self._bits.add_promises(promised)

    def close(self) -> None:
        """Record the rest, and unmap the record."""
        SYNCER.remove(self)
        with self._lock:
            if not self._closed:
                self._sync()
                self._closed = True
                self._bits.close()
