"""Answers the kernel's cache: one thread takes requests, workers fill what is waited for.

Opening and closing are done in the order in which they were asked for, and touch no backend; reads
wait for a worker each. A read that fails is ended all the same: whoever waits for it gets EIO
instead of waiting for ever.
"""

import contextlib
import errno
import logging
import os
import queue
import select
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nydusd.base.errors import NydusError
from nydusd.base.ratelimit import TokenBucket
from nydusd.fscache.cookies import cache_files
from nydusd.fscache.device import CacheDevice
from nydusd.fscache.messages import (
    CloseRequest,
    MessageError,
    OpenRequest,
    ReadRequest,
    parse_request,
)
from nydusd.fscache.objects import BootstrapObject, CacheObject, DataObject
from nydusd.fscache.sources import BootstrapSource, Filling, Find, Source

logger = logging.getLogger("nydusd")

STOP_SECONDS: Final = 2.0  # for reads that hang in a backend
BOOTSTRAP_FILLING: Final = Filling(threads=1, step_bytes=1 << 20, bandwidth_limit=0)
LEAST_STEP_BYTES: Final = 1 << 18


class OpenObject:
    """An object with its cache file; closed when the kernel has closed it and nobody fills it."""

    def __init__(self, content: CacheObject, fd: int) -> None:
        self.content = content
        self.fd = fd
        self.stop = threading.Event()  # for what fills it while nobody asks
        self._lock = threading.Lock()
        self._users = 0
        self._is_closed = False

    def enter(self) -> bool:
        """Keep it open until `leave`; false when it is closed."""
        with self._lock:
            self._users += not self._is_closed
            return not self._is_closed

    def leave(self) -> None:
        """Needed no more."""
        with self._lock:
            self._users -= 1
            is_last = self._is_closed and self._users == 0
        if is_last:
            self._shut()

    def close(self) -> None:
        """Close it now, or when the last user leaves."""
        self.stop.set()
        with self._lock:
            is_idle = not self._is_closed and self._users == 0
            self._is_closed = True
        if is_idle:
            self._shut()

    def _shut(self) -> None:
        os.close(self.fd)
        self.content.close()


class CacheServer:
    """Serves what *find* knows, on *device*, with *threads* workers; *on_end*: the kernel has left.

    `start` once, then `stop` once. The device is closed by `stop`.
    """

    def __init__(
        self,
        device: CacheDevice,
        folder: Path,
        find: Find,
        threads: int,
        on_end: Callable[[], None],
    ) -> None:
        self.device = device
        self.threads = threads
        self.folder = folder
        self._find = find
        self._on_end = on_end
        self._objects: dict[int, OpenObject] = {}  # by object id; of the reading thread alone
        self._reads: queue.SimpleQueue[ReadRequest | None] = queue.SimpleQueue()
        self._lock = threading.Lock()  # for looks at self._objects by others
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._stopping = False
        # Daemon threads: a read that hangs in a backend does not keep the process.
        self._reader = threading.Thread(target=self._read_requests, name="fscache", daemon=True)
        self._workers = [
            threading.Thread(target=self._work, name=f"fscache_{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin to answer."""
        for thread in (self._reader, *self._workers):
            thread.start()

    def stop(self) -> None:
        """Take no more requests, and close all; a read that hangs is given up."""
        self._stopping = True
        os.write(self._wake_write, b"!")
        if self._reader.ident is not None:
            self._reader.join()
        for _ in self._workers:
            self._reads.put(None)
        with self._lock:
            objects = list(self._objects.values())
            self._objects.clear()
        for each in objects:
            each.close()
        for thread in self._workers:
            if thread.ident is not None:
                thread.join(STOP_SECONDS / len(self._workers))
        self.device.close()
        for fd in (self._wake_read, self._wake_write):
            os.close(fd)

    def drop(self, blob_id: str) -> None:
        """Have the kernel remove what it keeps of a blob in any volume; `OSError` when it is used.

        Where nothing is kept nothing is done.
        """
        kept = []
        for folder, name in cache_files(self.folder, blob_id):
            try:
                self.device.drop_file(folder, name)
            except OSError as exc:
                logger.warning("%s cannot be dropped: %s", folder / name, exc)
                kept.append(str(exc))
        if kept:
            raise OSError(errno.EBUSY, f"failed to cull blob objects from fscache: {kept[0]}")

    # --- the reading thread

    def _read_requests(self) -> None:
        poll = select.poll()
        poll.register(self.device.fd, select.POLLIN)
        poll.register(self._wake_read, select.POLLIN)
        try:
            while not self._stopping:
                events = dict(poll.poll())
                if events.get(self.device.fd, 0) & (select.POLLHUP | select.POLLERR):
                    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))  # noqa: TRY301
                while not self._stopping and (data := self.device.receive()):
                    self._take(data)
        except OSError as exc:
            if not self._stopping:
                logger.error("cachefiles cannot be read any more: %s", exc)  # noqa: TRY400
                self._on_end()

    def _take(self, data: bytes) -> None:
        try:
            request = parse_request(data)
        except MessageError as exc:
            logger.error("cachefiles sent what is no request: %s", exc)  # noqa: TRY400
            return
        if isinstance(request, ReadRequest):
            self._reads.put(request)
        elif isinstance(request, OpenRequest):
            self._open(request)
        elif isinstance(request, CloseRequest):
            with self._lock:
                closed = self._objects.pop(request.object_id, None)
            if closed is not None:
                closed.close()

    def _open(self, request: OpenRequest) -> None:
        try:
            os.set_inheritable(request.fd, False)
        except OSError as exc:
            logger.error("cachefiles sent descriptor %d: %s", request.fd, exc)  # noqa: TRY400
            self.device.answer_open(request.message_id, -errno.EBADF)
            return
        source = self._find(request.volume, request.cookie)
        try:
            if request.object_id in self._objects:
                raise OSError(errno.EALREADY, os.strerror(errno.EALREADY))  # noqa: TRY301
            if source is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))  # noqa: TRY301
            content = open_source(source)
        except OSError as exc:
            logger.warning(
                "object %d, blob %a of domain %a, is not opened: %s",
                request.object_id, request.cookie, request.volume, exc,
            )  # fmt: skip
            os.close(request.fd)
            self.device.answer_open(request.message_id, -(exc.errno or errno.EIO))
            return
        opened = OpenObject(content, request.fd)
        with self._lock:
            self._objects[request.object_id] = opened
        self.device.answer_open(request.message_id, content.size)
        self._fill_along(opened, source)

    def _fill_along(self, opened: OpenObject, source: Source) -> None:
        """Have the object filled while nobody asks, if it is to be; a bootstrap always is."""
        filling = BOOTSTRAP_FILLING if isinstance(source, BootstrapSource) else source.filling
        if filling is None:
            return
        step = max(filling.step_bytes, LEAST_STEP_BYTES)
        steps = iter(range(0, opened.content.size, step))
        rate = filling.bandwidth_limit
        bucket = TokenBucket(rate, max(rate, step)) if rate else None
        lock = threading.Lock()

        def work() -> None:
            while opened.enter():
                try:
                    with lock:
                        at = next(steps, None)
                    if at is None or (bucket and not bucket.take(step, opened.stop)):
                        return
                    opened.content.fill(opened.fd, at, step)
                except (NydusError, OSError) as exc:  # its readers get the error, if any come
                    logger.warning("%s is not filled in advance: %s", opened.content.name, exc)
                    return
                finally:
                    opened.leave()

        count = min(filling.threads, -(-opened.content.size // step))
        for _ in range(count):
            threading.Thread(target=work, name="fscache_fill", daemon=True).start()

    # --- workers

    def _work(self) -> None:
        while (request := self._reads.get()) is not None:
            with self._lock:
                opened = self._objects.get(request.object_id)
            if opened is None or not opened.enter():
                # Without the object's descriptor there is no way to answer.
                logger.warning("a read of object %d, which is not open", request.object_id)
                continue
            try:
                with contextlib.ExitStack() as ends:
                    ends.callback(self.device.finish_read, opened.fd, request.message_id)
                    opened.content.fill(opened.fd, request.offset, request.length)
            except (NydusError, OSError) as exc:
                logger.error(  # noqa: TRY400
                    "%s: %d bytes at %d cannot be had: %s",
                    opened.content.name, request.length, request.offset, exc,
                )  # fmt: skip
            except Exception:
                logger.exception("%s: a read of it failed", opened.content.name)
            finally:
                opened.leave()


def open_source(source: Source) -> CacheObject:
    """The object that *source* describes; `OSError`."""
    if isinstance(source, BootstrapSource):
        return BootstrapObject(source.path)
    return DataObject(source)
