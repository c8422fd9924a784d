"""The kernel's side of on-demand cachefiles, played by a script.

Requests come as the messages that the kernel sends, one a read, on a descriptor that can be polled;
commands are taken in the order that the kernel demands, and refused with its errno. Cache files are
real ones, opened as the kernel opens them: for writing only, with direct I/O where the file system
has it, so that a write off a page fails. What is documented in Linux,
Documentation/filesystems/caching/cachefiles.rst, is played; nothing is known of who answers.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from pathlib import Path

from nydusd.fscache.device import CacheDevice

WAIT_S = 60
O_DIRECT = os.O_DIRECT
PAGE = 4096


def refuse(number):
    raise OSError(number, os.strerror(number))


class ScriptedDevice(CacheDevice):
    """A device whose commands reach the script at once, so that it can refuse them."""

    def __init__(self, kernel, fd):
        super().__init__(fd)
        self.kernel = kernel

    def command(self, text):
        self.kernel.command(text)

    def finish_read(self, fd, message_id):
        self.kernel.finish_read(fd, message_id)


class KernelObject:
    """A cache file that somebody has mounted."""

    def __init__(self, object_id, path):
        self.object_id = object_id
        self.path = path
        self.size = None  # as the daemon said, or a negative errno
        self.fd = -1  # the daemon's


class Kernel:
    """One cache; `device` is what the daemon has open."""

    def __init__(self):
        self.ours, theirs = socket.socketpair(
            socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        )
        self.device = ScriptedDevice(self, theirs.detach())
        self.commands = []
        self.folder = None
        self.bound = False
        self.requests = 0
        self.culled = []
        self.in_use = set()
        self._answers = {}  # message id -> event
        self._pending = {}  # message id -> (object, message)
        self._lock = threading.Lock()

    # --- what the daemon does

    def command(self, text):
        self.commands.append(text)
        word, _, rest = text.partition(" ")
        getattr(self, f"do_{word}", lambda _rest: refuse(errno.EINVAL))(rest)

    def do_dir(self, rest):
        if self.folder is not None:
            refuse(errno.EEXIST)
        self.folder = Path(rest)

    def do_tag(self, rest):
        if self.bound or not rest:
            refuse(errno.EINVAL)

    def do_bind(self, rest):
        if self.folder is None or rest != "ondemand":
            refuse(errno.EINVAL)
        if self.bound:
            refuse(errno.EBUSY)
        self.bound = True
        (self.folder / "cache").mkdir(exist_ok=True)

    def do_copen(self, rest):
        message_id, _, size = rest.partition(",")
        with self._lock:
            if int(message_id) not in self._pending:
                refuse(errno.EINVAL)
            found, _ = self._pending.pop(int(message_id))
        found.size = int(size)
        if found.size >= 0:
            os.truncate(found.path, found.size)
        self._answers.pop(int(message_id)).set()

    def do_inuse(self, rest):
        path = Path.cwd() / rest  # of the asking thread
        if not path.is_file():
            refuse(errno.ENOENT)
        if path in self.in_use:
            refuse(errno.EBUSY)

    def do_cull(self, rest):
        self.do_inuse(rest)
        self.culled.append(Path.cwd() / rest)
        (Path.cwd() / rest).unlink()

    def finish_read(self, fd, message_id):
        with self._lock:
            found = self._pending.get(message_id)
            if found is None or found[0].fd != fd:
                refuse(errno.EINVAL)
            del self._pending[message_id]
        self._answers.pop(message_id).set()

    # --- what happens in the kernel

    def send(self, operation, found, payload, answered=True):
        with self._lock:
            self.requests += 1
            message_id = self.requests
            header = struct.pack("=IIII", message_id, operation, 16 + len(payload), found.object_id)
            event = threading.Event()
            if answered:
                self._pending[message_id] = (found, header + payload)
                self._answers[message_id] = event
        self.ours.send(header + payload)
        return event

    def open(self, volume, cookie, object_id=None):
        """Open the cache file of *cookie*; its size, or a negative errno, is in the object."""
        folder = self.folder / "cache" / f"Ierofs,{volume}"
        folder.mkdir(exist_ok=True)
        path = folder / f"D{cookie}"
        found = KernelObject(object_id or self.requests + 1, path)
        path.touch()
        try:
            found.fd = os.open(path, os.O_WRONLY | O_DIRECT)
        except OSError:
            found.fd = os.open(path, os.O_WRONLY)
        volume_key, cookie_key = f"erofs,{volume}".encode() + b"\0", cookie.encode()
        keys = struct.pack("=IIII", len(volume_key), len(cookie_key), found.fd, 0)
        assert self.send(0, found, keys + volume_key + cookie_key).wait(WAIT_S), "no copen"
        return found

    def has_hole(self, found, offset, size):
        with found.path.open("rb") as file:
            end = min(offset + size, found.size)
            try:
                return os.lseek(file.fileno(), offset, os.SEEK_HOLE) < end
            except OSError:
                return True

    def read(self, found, offset, size):
        """A read of somebody's: asks the daemon for what is missing; EIO when it does not come."""
        start = offset // PAGE * PAGE
        length = -(-(offset + size - start) // PAGE) * PAGE
        if self.has_hole(found, start, length):
            assert self.send(2, found, struct.pack("=QQ", start, length)).wait(WAIT_S), "no cread"
            if self.has_hole(found, start, length):
                refuse(errno.EIO)
        with found.path.open("rb") as file:
            return os.pread(file.fileno(), min(size, found.size - offset), offset)

    def close(self, found):
        """Nobody needs the object any more."""
        self.send(1, found, b"", answered=False)

    def end(self):
        self.ours.close()
