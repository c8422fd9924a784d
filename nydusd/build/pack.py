"""Files to a data blob: read, cut, digest, leave out what is known, compress, write.

Three stages overlap, joined by short queues, so memory stays bounded: a reading thread fills
buffers and digests chunks, the calling thread decides what is new and compresses it, a writing
thread appends to the blob and hashes it. All the heavy calls give up the GIL.
"""

import hashlib
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from nydusd.base.errors import BuildError
from nydusd.base.record import NamedTuple
from nydusd.build.node import shown
from nydusd.build.output import OutputFile
from nydusd.build.read_files import read_files
from nydusd.codec.compression import compress
from nydusd.codec.digest import crc32c_of, digest_of
from nydusd.rafs.blobs import Compressor, Digester
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode

# Plain bytes that travel together, unless one chunk is larger: what fits a core's cache is read,
# digested, hashed and written from there (300 MB: 1 MiB 0.85 s of CPU, 8 MiB 0.96 s). Chunks to be
# compressed need more, to be work for every core.
BATCH_BYTES = 1 << 20
COMPRESSED_BATCH_BYTES = 4 << 20
BATCH_RANGES = 1024  # files of one batch
BATCHES_WAITING = 2  # in each queue

Range = tuple[bytes, int, int, int, int, int]


@dataclass(slots=True)
class Batch:
    """Plain data of some files, side by side, and how it is cut."""

    buffer: bytearray
    ranges: list[Range] = field(default_factory=list)
    files: list[tuple[TreeNode, int]] = field(default_factory=list)  # which, its chunks in here
    sizes: list[int] = field(default_factory=list)  # of the chunks
    digests: list[bytes] = field(default_factory=list)
    crcs: list[int] | None = None
    used: int = 0
    error: BaseException | None = None


@dataclass(slots=True)
class Progress:
    """How far a build has come; read by whoever shows it."""

    files: int = 0
    bytes: int = 0  # plain


class Job(NamedTuple):
    """What the writing thread is given."""

    buffers: list[memoryview | bytes]
    done: Callable[[], None] | None
    in_id: bool


class BlobWriter:
    """Appends to the blob file and to its sha256, in a thread of its own."""

    def __init__(self, output: OutputFile) -> None:
        self.output = output
        self.hash = hashlib.sha256()
        self.size = 0  # bytes handed over; what is written may lag behind
        self._error: BaseException | None = None
        self._queue: queue.Queue[Job | None] = queue.Queue(BATCHES_WAITING)
        self._thread = threading.Thread(target=self._run, name="blob-writer", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._error is None:
                try:
                    self.output.write(job.buffers)
                    for buffer in job.buffers if job.in_id else ():
                        self.hash.update(buffer)
                except BaseException as exc:  # raised again by the caller's
                    self._error = exc
            if job.done is not None:
                job.done()
            self._queue.task_done()
        self._queue.task_done()

    def write(
        self,
        buffers: list[memoryview | bytes],
        done: Callable[[], None] | None = None,
        *,
        in_id: bool = True,
    ) -> None:
        """Append *buffers* soon; *done* is called when they are not needed any more.

        Without *in_id* they are no part of the blob's sha256.
        """
        if self._error is not None:
            raise self._error
        self.size += sum(map(len, buffers))
        self._queue.put(Job(buffers, done, in_id))

    def flush(self) -> None:
        """Return when all is written; raises what went wrong."""
        self._queue.join()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """End the thread; what waits is still written."""
        self._queue.put(None)
        self._thread.join()


class Packer:
    """Turns the data of files into chunks of *chunks* and bytes of *writer*."""

    def __init__(
        self,
        chunks: ChunkTable,
        writer: BlobWriter,
        *,
        chunk_size: int,
        compressor: Compressor,
        digester: Digester,
        chunk_crc: bool,
        add_chunks: Callable[[list[bytes], list[int], list[int] | None], list[int]],
        progress: Progress,
    ) -> None:
        self.chunks = chunks
        self.writer = writer
        self.chunk_size = chunk_size
        self.compressor = compressor
        self.digester = digester
        self.chunk_crc = chunk_crc
        self.add_chunks = add_chunks
        self.progress = progress
        wanted = BATCH_BYTES if compressor == Compressor.NONE else COMPRESSED_BATCH_BYTES
        self._buffer_size = max(wanted, chunk_size)
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(2 * BATCHES_WAITING + 2):
            self._free.put(bytearray())
        self._stopping = False
        self._workers = os.cpu_count() or 1

    def pack(self, files: Iterable[TreeNode]) -> None:
        """Pack *files* (regular ones) in order; sets their chunk references."""
        self._stopping = False
        batches: queue.Queue[Batch | None] = queue.Queue(BATCHES_WAITING)
        reader = threading.Thread(
            target=self._read, args=(iter(files), batches), name="file-reader", daemon=True
        )
        reader.start()
        ended = False
        try:
            with ThreadPoolExecutor(max_workers=self._workers) as pool:
                while not ended:
                    batch = batches.get()
                    ended = batch is None or batch.error is not None
                    if batch is not None:
                        self._store(batch, pool)
            self.writer.flush()
        finally:
            self._stopping = True
            while not ended:  # the reader may wait for room in the queue or for a buffer
                left = batches.get()
                ended = left is None or left.error is not None
                if left is not None:
                    self._free.put(left.buffer)
            reader.join()

    def _batches(self, files: Iterator[TreeNode]) -> Iterator[Batch]:
        """The ranges to be read, batch by batch; nothing is read yet."""
        batch = self._new_batch()
        for node in files:
            offset = 0
            while True:
                room = len(batch.buffer) - batch.used
                if room < min(self.chunk_size, node.size - offset) or (
                    len(batch.ranges) >= BATCH_RANGES
                ):
                    yield batch
                    batch = self._new_batch()
                    continue
                left = node.size - offset
                length = left if left <= room else room // self.chunk_size * self.chunk_size
                if length:
                    batch.ranges.append(
                        (node.path, offset, length, node.size, node.mtime, node.mtime_nsec)
                    )
                    batch.used += length
                whole, rest = divmod(length, self.chunk_size)
                batch.sizes.extend([self.chunk_size] * whole)
                if rest:
                    batch.sizes.append(rest)
                batch.files.append((node, whole + bool(rest)))
                offset += length
                if offset == node.size:
                    break
        if batch.files:
            yield batch

    def _new_batch(self) -> Batch:
        buffer = self._free.get()
        if len(buffer) != self._buffer_size:
            buffer = bytearray(self._buffer_size)
        return Batch(buffer)

    def _read(self, files: Iterator[TreeNode], batches: "queue.Queue[Batch | None]") -> None:
        """The reading thread: an error travels as the last batch."""
        try:
            for batch in self._batches(files):
                if self._stopping:
                    break
                self._fill(batch)
                batches.put(batch)
            batches.put(None)
        except BaseException as exc:  # raised again by the caller's
            batches.put(Batch(bytearray(), error=exc))

    def _fill(self, batch: Batch) -> None:
        failure = read_files(batch.ranges, batch.buffer)
        if failure is not None:
            index, code = failure
            path = shown(batch.ranges[index][0])
            if code == 0:
                raise BuildError(f"{path}: changed while it was packed; pack it when it is at rest")
            raise BuildError(f"{path}: cannot be read: {os.strerror(code)}")
        view = memoryview(batch.buffer)
        digester = self.digester
        start = 0
        for size in batch.sizes:
            batch.digests.append(digest_of(digester, view[start : start + size]))
            start += size
        if self.chunk_crc:
            batch.crcs = []
            start = 0
            for size in batch.sizes:
                batch.crcs.append(crc32c_of(view[start : start + size]))
                start += size

    def _store(self, batch: Batch, pool: ThreadPoolExecutor) -> None:
        """Refer to the batch's chunks; those that are new go to the writer."""
        if batch.error is not None:
            raise batch.error
        first = self.chunks.reference_total
        for node, count in batch.files:
            if node.chunk_count == 0:
                node.first_reference = first
                self.progress.files += 1
            node.chunk_count += count
            first += count
        new = self.add_chunks(batch.digests, batch.sizes, batch.crcs)
        self.progress.bytes += batch.used
        if self.compressor == Compressor.NONE:
            self.chunks.store_plain(len(new))
            buffers = runs(batch, new)
        else:
            buffers = self._compressed(batch, new, pool)
        free, buffer = self._free, batch.buffer
        if buffers:
            self.writer.write(buffers, lambda: free.put(buffer))
        else:
            free.put(buffer)

    def _compressed(
        self, batch: Batch, new: list[int], pool: ThreadPoolExecutor
    ) -> list[memoryview | bytes]:
        """The new chunks as they are stored: compressed where that makes them smaller."""
        compressor = int(self.compressor)
        plain = pieces(batch, new)
        stored: list[memoryview | bytes] = []
        sizes = []
        # One job a core, not one a chunk: handing over costs more than a small chunk does.
        count = min(self._workers, len(plain))
        jobs = [
            pool.submit(compress_all, compressor, plain[first::count]) for first in range(count)
        ]
        found = [job.result() for job in jobs]
        for number, piece in enumerate(plain):
            packed = found[number % count][number // count]
            if len(packed) < len(piece):
                stored.append(packed)
                sizes.append(len(packed))
            else:
                stored.append(piece)
                sizes.append(0)
        self.chunks.store_compressed(sizes)
        return stored


def compress_all(compressor: int, plain: list[memoryview]) -> list[bytes]:
    """Each of *plain* compressed."""
    return [compress(compressor, piece) for piece in plain]


def pieces(batch: Batch, positions: list[int]) -> list[memoryview]:
    """The chunks at *positions* (ascending) of *batch*."""
    view = memoryview(batch.buffer)
    found = []
    start = position = 0
    for wanted in positions:
        while position < wanted:
            start += batch.sizes[position]
            position += 1
        found.append(view[start : start + batch.sizes[position]])
    return found


def runs(batch: Batch, positions: list[int]) -> list[memoryview | bytes]:
    """The chunks at *positions* (ascending) of *batch*, neighbours joined."""
    if len(positions) == len(batch.sizes):
        return [memoryview(batch.buffer)[: batch.used]] if batch.used else []
    view = memoryview(batch.buffer)
    found: list[memoryview | bytes] = []
    wanted = set(positions)
    start = end = 0
    for position, size in enumerate(batch.sizes):
        if position not in wanted:
            if end > start:
                found.append(view[start:end])
            start = end + size
        end += size
    if end > start:
        found.append(view[start:end])
    return found
