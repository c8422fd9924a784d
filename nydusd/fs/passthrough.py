"""Shows a directory of the host, as it is and becomes: others may change it at any time.

Names and attributes are believed for `VALID_SECONDS`. What the kernel has cached of a file stays
good over an open if the file has not changed since. Symbolic links are the reader's to follow; no
name leads out of the directory. Operations are called from workers and fetching threads, many at a
time; what they wait for is the host's disk.
"""

import errno
import os
import stat as mode_bits
import time
from collections.abc import Callable, Iterator
from typing import Final

from nydusd.fs import host_directory as host
from nydusd.fs.filesystem import PyFilesystem
from nydusd.fs.host_calls import device_of
from nydusd.fs.host_inodes import ROOT, HostInode, HostInodes
from nydusd.fs.host_search import HostSearch
from nydusd.fs.open_files import OpenFiles
from nydusd.fs.stat import Caller, Changes, Entry, Opened, Stat, Statistics

VALID_SECONDS: Final = 5
# A file that was changed within it may be changed again without another mtime.
RACY_NS: Final = 2_000_000_000


def refusal(code: int) -> OSError:
    """The `OSError` of *code*."""
    return OSError(code, os.strerror(code))


class PassthroughFs(PyFilesystem):
    """The host directory *source*; `OSError` when it cannot be opened.

    *own_device*: the device of the mount that shows it (-1: not yet known), which is not entered
    where it lies inside the directory. *recovers*: the kernel may ask for inodes that a predecessor
    told it of; they are searched for.
    """

    def __init__(
        self,
        source: str,
        *,
        own_device: Callable[[], int] = lambda: -1,
        recovers: bool = False,
        limit: int | None = None,
        uses_handles: bool = True,
    ) -> None:
        self._inodes = HostInodes(host.open_root(source), limit, uses_handles=uses_handles)
        self._files = OpenFiles()
        self._own_device = own_device
        self._search = HostSearch(self._inodes) if recovers else None
        self.set_root(ROOT, lists_attributes=True)

    def close(self) -> None:
        """Let go of every descriptor that nobody uses any more; after the last request."""
        self._files.close()
        self._inodes.close()

    @property
    def known_inodes(self) -> int:
        """How many inodes the kernel knows."""
        return len(self._inodes)

    @property
    def held_inodes(self) -> int:
        """How many of them are held open."""
        return self._inodes.held

    @property
    def open_files(self) -> int:
        """How many handles the kernel has."""
        return len(self._files)

    def root_names(self) -> list[bytes]:
        """The names in the directory itself."""
        fd = host.open_again(self._inodes.root.fd, os.O_RDONLY | os.O_DIRECTORY)
        try:
            return [os.fsencode(name) for name in os.listdir(fd)]  # noqa: PTH208
        finally:
            os.close(fd)

    def _inode(self, ino: int) -> HostInode:
        try:
            return self._inodes.get(ino)
        except OSError:
            found = None if self._search is None else self._search.find(ino)
            if found is None:
                raise
            return found

    def _stat(self, inode: HostInode) -> Stat:
        return host.make_stat(inode.number, os.fstat(inode.fd), VALID_SECONDS)

    def _told(self, fd: int) -> Stat:
        """The `Stat` of *fd*, which is taken over; the kernel is told of it."""
        own = self._own_device()
        if own >= 0 and device_of(fd) == own:  # a look at it would be a request to ourselves
            os.close(fd)
            raise refusal(errno.ELOOP)
        inode, found = self._inodes.add(fd)
        return host.make_stat(inode.number, found, VALID_SECONDS)

    def find(self, ino: int, name: bytes) -> Stat | None:
        """See `PyFilesystem`."""
        if b"/" in name or name in (b"", b".", b".."):
            raise refusal(errno.EINVAL)
        try:
            return self._told(host.look(self._inode(ino).fd, name))
        except FileNotFoundError:
            return None

    def _made(self, directory: HostInode, name: bytes) -> Stat:
        """The `Stat` of what has just been made."""
        return self._told(host.look(directory.fd, name))

    def forget(self, ino: int, count: int) -> None:
        """See `PyFilesystem`."""
        self._inodes.forget(ino, count)

    def stat(self, ino: int) -> Stat:
        """See `PyFilesystem`."""
        return self._stat(self._inode(ino))

    def read_link(self, ino: int) -> bytes:
        """See `PyFilesystem`."""
        return host.read_link(self._inode(ino).fd)

    # ------------------------------------------------------------ files

    def open_file(self, ino: int, flags: int) -> Opened:
        """See `PyFilesystem`."""
        inode = self._inode(ino)
        if inode.kind != mode_bits.S_IFREG:  # a pipe would wait, a device is the host's alone
            raise refusal(errno.EISDIR if inode.kind == mode_bits.S_IFDIR else errno.ENXIO)
        fd = host.open_again(inode.fd, flags)
        handle = self._files.add(inode, fd)
        return Opened(handle, keep_cache=still_cached(inode, os.fstat(fd)))

    def close_file(self, ino: int, handle: int) -> None:
        """See `PyFilesystem`."""
        self._files.remove(handle)

    def read_file(self, ino: int, handle: int, offset: int, size: int) -> bytes:
        """See `PyFilesystem`."""
        return os.pread(self._files.get(self._inode(ino), handle).fd, size, offset)

    def write_file(
        self,
        ino: int,
        handle: int,
        offset: int,
        data: memoryview,
        flags: int,
        kills_privileges: bool,
    ) -> int:
        """See `PyFilesystem`."""
        file = self._files.get(self._inode(ino), handle)
        if kills_privileges:
            host.drop_privileges(host.by_descriptor(file.fd), os.fstat(file.fd))
        return host.write(file.fd, data, offset, flags)

    def flush_file(self, ino: int, handle: int) -> None:
        """See `PyFilesystem`."""
        # Closing a copy tells what a network file system could not write.
        os.close(os.dup(self._files.get(self._inode(ino), handle).fd))

    def sync_file(self, ino: int, handle: int, data_only: bool) -> None:
        """See `PyFilesystem`."""
        host.sync(self._files.get(self._inode(ino), handle).fd, data_only=data_only)

    def allocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        """See `PyFilesystem`."""
        host.allocate(self._files.get(self._inode(ino), handle).fd, mode, offset, length)

    def seek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        """See `PyFilesystem`."""
        if offset >= 1 << 63:
            raise refusal(errno.ENXIO)
        return os.lseek(self._files.get(self._inode(ino), handle).fd, offset, whence)

    def copy_range(
        self,
        ino: int,
        handle: int,
        offset: int,
        target: int,
        target_handle: int,
        target_offset: int,
        length: int,
    ) -> int:
        """See `PyFilesystem`."""
        source = self._files.get(self._inode(ino), handle)
        into = self._files.get(self._inode(target), target_handle)
        return os.copy_file_range(source.fd, into.fd, length, offset, target_offset)

    # ------------------------------------------------------------ directories

    def open_directory(self, ino: int, flags: int) -> Opened:
        """See `PyFilesystem`."""
        inode = self._inode(ino)
        fd = host.open_again(inode.fd, os.O_RDONLY | os.O_DIRECTORY)
        return Opened(self._files.add(inode, fd))

    def close_directory(self, ino: int, handle: int) -> None:
        """See `PyFilesystem`."""
        self._files.remove(handle)

    def entries(self, ino: int, handle: int, offset: int) -> Iterator[Entry]:
        """See `PyFilesystem`."""
        inode = self._inode(ino)
        listing = self._files.directory(inode, handle)
        device = inode.key[0]
        while rows := listing.after(offset):
            for name, host_ino, offset, kind in rows:  # goes on behind it
                if name == b"." or (name == b".." and ino == ROOT):
                    shown = ino
                else:
                    shown = self._inodes.shown(device, host_ino)
                yield Entry(name, shown, offset, kind)

    def sync_directory(self, ino: int, handle: int, data_only: bool) -> None:
        """See `PyFilesystem`."""
        host.sync(self._files.get(self._inode(ino), handle).fd, data_only=data_only)

    # ------------------------------------------------------------ changes

    def change_attributes(self, ino: int, handle: int | None, changes: Changes) -> Stat:
        """See `PyFilesystem`."""
        inode = self._inode(ino)
        file = None if handle is None else self._files.get(inode, handle)
        host.change_attributes(inode.fd, None if file is None else file.fd, changes)
        return self._stat(inode)

    def make_node(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        directory = self._inode(parent)
        host.make_node(directory.fd, name, mode, rdev, caller)
        return self._made(directory, name)

    def make_directory(self, parent: int, name: bytes, mode: int, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        directory = self._inode(parent)
        host.make_directory(directory.fd, name, mode, caller)
        return self._made(directory, name)

    def make_symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        directory = self._inode(parent)
        host.make_symlink(directory.fd, name, target, caller)
        return self._made(directory, name)

    def make_link(self, ino: int, parent: int, name: bytes) -> Stat:
        """See `PyFilesystem`."""
        inode, directory = self._inode(ino), self._inode(parent)
        host.make_link(inode.fd, directory.fd, name)
        return self._told(os.dup(inode.fd))

    def create_file(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Stat, Opened]:
        """See `PyFilesystem`."""
        fd = host.create(self._inode(parent).fd, name, mode, flags, caller)
        try:
            stat = self._told(os.open(host.by_descriptor(fd), os.O_PATH | os.O_CLOEXEC))
            handle = self._files.add(self._inodes.get(stat.ino), os.dup(fd))
        finally:
            os.close(fd)
        return stat, Opened(handle)

    def remove_file(self, parent: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        host.remove_file(self._inode(parent).fd, name)

    def remove_directory(self, parent: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        host.remove_directory(self._inode(parent).fd, name)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """See `PyFilesystem`."""
        host.rename(self._inode(parent).fd, name, self._inode(new_parent).fd, new_name, flags)

    # ------------------------------------------------------------ attributes

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        """See `PyFilesystem`."""
        return host.get_xattr(self._inode(ino).fd, name)

    def list_xattrs(self, ino: int) -> list[bytes]:
        """See `PyFilesystem`."""
        return host.list_xattrs(self._inode(ino).fd)

    def set_xattr(self, ino: int, name: bytes, value: memoryview, flags: int) -> None:
        """See `PyFilesystem`."""
        host.set_xattr(self._inode(ino).fd, name, value, flags)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        host.remove_xattr(self._inode(ino).fd, name)

    def statistics(self, ino: int) -> Statistics:
        """See `PyFilesystem`."""
        return host.statistics(self._inode(ino).fd)


def still_cached(inode: HostInode, found: os.stat_result) -> bool:
    """Whether what the kernel cached of *inode* before is what it has now; noted for next time."""
    state = (found.st_mtime_ns, found.st_size)
    is_same = inode.known.cached == state
    inode.known.cached = state if time.time_ns() - found.st_mtime_ns > RACY_NS else None
    return is_same
