"""A writable layer above an image: what the kernel asks, answered from two trees.

`OverlayFs` keeps the kernel's view (node numbers, handles, listings); the merge rules, copying up
and the changes of names are parts of their own (see docs/decisions, "writable overlay"). Called by
the carrier's workers, many at a time. Reads and writes of open files do not come here but for
handles that another process has given out: `LayeredFiles` answers them without the GIL.
"""

import errno
import itertools
import os
import random
import stat as mode_bits
from collections.abc import Callable, Iterator

from nydusd.fs import host_directory
from nydusd.fs.filesystem import Filesystem
from nydusd.fs.host_directory import host_device
from nydusd.fs.layered import LayeredFiles
from nydusd.fs.lower import LowerTree
from nydusd.fs.overlay_copy_up import CopyUp
from nydusd.fs.overlay_merge import Listed, MergedTree
from nydusd.fs.overlay_names import Names
from nydusd.fs.overlay_nodes import Node
from nydusd.fs.overlay_search import NodeSearch
from nydusd.fs.overlay_upper import UpperLayer, is_private
from nydusd.fs.stat import Caller, Changes, Entry, Opened, Stat, Statistics

# Of an open file's flags, what the host's open is given: the rest the kernel has dealt with.
KEPT_FLAGS = os.O_ACCMODE | os.O_DSYNC | os.O_SYNC

MakeFile = Callable[[bytes, int], None]  # makes a file of that name in an open directory


def open_overlay(
    lower: Filesystem, upper_dir: str, work_dir: str, *, writable: bool, recovers: bool = False
) -> "OverlayFs":
    """An overlay of *upper_dir* over *lower*, ready to be served; `MountError`.

    *recovers*: another process has served it before, and may not have let go of it yet.
    """
    upper = UpperLayer(upper_dir, work_dir)
    try:
        overlay = OverlayFs(lower, upper, writable=writable)
        if recovers:
            overlay.recover()
        elif writable:
            overlay.begin()
    except BaseException:
        upper.close()
        raise
    return overlay


class OverlayFs(LayeredFiles):
    """*upper* over the file system *lower*; not *writable*, it refuses every change.

    `begin` is called before the first request, unless another process still has the upper
    directory: then the first change calls it.
    """

    def __init__(self, lower: Filesystem, upper: UpperLayer, *, writable: bool = True) -> None:
        self._tree = MergedTree(upper, LowerTree(lower))
        self._upper = upper
        self._copy_up = CopyUp(self._tree, self)
        self._names = Names(self._tree, self._copy_up)
        self._is_writable = writable
        self._has_begun = False
        self._listings: dict[int, list[Listed]] = {}  # by handle of an open directory
        self._listing_numbers = itertools.count(random.getrandbits(62))
        self._search: NodeSearch | None = None
        self.set_root(lower.root_ino)
        root = self._tree.nodes.root
        self.show_root(root.upper, 1 if root.lower else 0)

    def begin(self) -> None:
        """Take the upper directory; `MountError` when it cannot be had or used."""
        with self._tree.lock:
            if self._has_begun:
                return
            for group in self._upper.begin():
                self._copy_up.finish_group(group)
            self._has_begun = True

    def recover(self) -> None:
        """Search for inodes by number that the kernel has from another process."""
        self._search = NodeSearch(self._tree)

    def close(self) -> None:
        """Let go of both trees, when nobody asks any more."""
        self._tree.close()
        self._upper.close()

    def _node(self, ino: int) -> Node:
        try:
            return self._tree.nodes.node(ino)
        except OSError:
            found = None if self._search is None else self._search.find(ino)
            if found is None:
                raise
            return found

    def _changing(self) -> None:
        """Refuse a change where none may be made."""
        if not self._is_writable:
            raise OSError(errno.EROFS, "the daemon runs without --writable")
        if not self._has_begun:
            self.begin()

    def _raised(self, ino: int, size: int | None = None) -> Node:
        """The node *ino*, brought up to be changed."""
        self._changing()
        node = self._node(ino)
        self._copy_up.bring(node, size)
        return node

    def _told(self, node: Node) -> Stat:
        """What the kernel is told of *node*, which it then knows once more."""
        status = self._tree.status(node)
        self._tree.nodes.told(node)
        return status

    # ---------------------------------------------------------------- looking

    def find(self, ino: int, name: bytes) -> Stat | None:
        """See `PyFilesystem`."""
        with self._tree.lock:
            node = self._tree.find(self._node(ino), name)
            return None if node is None else self._told(node)

    def forget(self, ino: int, count: int) -> None:
        """See `PyFilesystem`."""
        with self._tree.lock:
            self._tree.nodes.forget(ino, count)

    def stat(self, ino: int) -> Stat:
        """See `PyFilesystem`."""
        return self._tree.status(self._node(ino))

    def read_link(self, ino: int) -> bytes:
        """See `PyFilesystem`."""
        node = self._node(ino)
        if node.upper < 0:
            return self._tree.lower.read_link(node.lower)
        return host_directory.read_link(node.upper)

    def get_xattr(self, ino: int, name: bytes) -> bytes:
        """See `PyFilesystem`."""
        node = self._node(ino)
        if is_private(name):
            raise OSError(errno.ENODATA, "no such attribute")
        if node.upper < 0:
            return self._tree.lower.get_xattr(node.lower, name)
        return host_directory.get_xattr(node.upper, name)

    def list_xattrs(self, ino: int) -> list[bytes]:
        """See `PyFilesystem`."""
        node = self._node(ino)
        if node.upper < 0:
            names = self._tree.lower.list_xattrs(node.lower)
        else:
            names = host_directory.list_xattrs(node.upper)
        return [name for name in names if not is_private(name)]

    def statistics(self, ino: int) -> Statistics:
        """See `PyFilesystem`: of the file system of the upper directory."""
        return host_directory.statistics(self._upper.root)

    # ---------------------------------------------------------------- directories

    def open_directory(self, ino: int, flags: int) -> Opened:
        """See `PyFilesystem`."""
        return Opened(next(self._listing_numbers))

    def close_directory(self, ino: int, handle: int) -> None:
        """See `PyFilesystem`."""
        self._listings.pop(handle, None)

    def entries(self, ino: int, handle: int, offset: int) -> Iterator[Entry]:
        """See `PyFilesystem`.

        An open directory is read once, and again when its reader goes back to the start: what is
        removed or made meanwhile moves no entry.
        """
        node = self._node(ino)
        listed = self._listings.get(handle)
        if listed is None or offset == 0:
            with self._tree.lock:
                above = node.parent.number if node.parent is not None else node.number
                listed = [
                    Listed(b".", node.number, mode_bits.S_IFDIR),
                    Listed(b"..", above, mode_bits.S_IFDIR),
                    *self._tree.entries(node),
                ]
            self._listings[handle] = listed
        for index in range(offset, len(listed)):
            name, number, kind = listed[index]
            yield Entry(name, number, index + 1, kind >> 12)

    def sync_directory(self, ino: int, handle: int, data_only: bool) -> None:
        """See `PyFilesystem`."""
        node = self._node(ino)
        if node.upper >= 0:
            host_directory.sync_inode(node.upper, data_only=data_only)

    # ---------------------------------------------------------------- open files

    def open_file(self, ino: int, flags: int) -> Opened:
        """See `PyFilesystem`."""
        node = self._node(ino)
        if not node.is_regular:
            raise OSError(errno.ENXIO, "not a regular file")
        if flags & (os.O_ACCMODE | os.O_TRUNC) != os.O_RDONLY:
            self._raised(ino, 0 if flags & os.O_TRUNC else None)
        with self._tree.lock:
            return self._opened(node, flags)

    def _opened(self, node: Node, flags: int) -> Opened:
        """A handle of a regular file; the kernel's pages of it stay right, it has made them."""
        if node.upper < 0:
            handle = self.new_handle(-1, node.lower)
            node.handles.add(handle)
            return Opened(handle, keep_cache=True)
        truncates = flags & os.O_TRUNC
        fd = host_directory.open_again(node.upper, flags & KEPT_FLAGS | truncates)
        try:
            return Opened(self.new_handle(fd), keep_cache=not truncates)
        except BaseException:
            os.close(fd)
            raise

    def close_file(self, ino: int, handle: int) -> None:
        """See `PyFilesystem`."""
        with self._tree.lock:
            fd = self.drop_handle(handle)
            node = self._tree.nodes.known(ino)
            if node is not None:
                node.handles.discard(handle)
                self._tree.nodes.drop(node)
        if fd >= 0:
            os.close(fd)

    def _descriptor(self, node: Node, handle: int, flags: int) -> tuple[int, bool]:
        """What *handle* stands for, and whether the caller has to close it.

        -1: the lower file. A handle of another process is opened anew for each use.
        """
        fd = self.descriptor(handle)
        if fd is not None:
            return fd, False
        if node.upper < 0:
            return -1, False
        return host_directory.open_again(node.upper, flags), True

    def read_file(self, ino: int, handle: int, offset: int, size: int) -> bytes:
        """See `PyFilesystem`; of a handle that this process has not given out."""
        node = self._node(ino)
        fd, closes = self._descriptor(node, handle, os.O_RDONLY)
        if fd < 0:
            return self._tree.lower.read(node.lower, offset, size)
        try:
            return os.pread(fd, size, offset)
        finally:
            if closes:
                os.close(fd)

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
        node = self._raised(ino)
        fd, closes = self._descriptor(node, handle, os.O_WRONLY)
        try:
            if kills_privileges:
                host_directory.drop_privileges(node.upper_path, os.fstat(node.upper))
            return os.pwrite(fd, data, offset)
        finally:
            if closes:
                os.close(fd)

    def sync_file(self, ino: int, handle: int, data_only: bool) -> None:
        """See `PyFilesystem`."""
        fd, closes = self._descriptor(self._node(ino), handle, os.O_RDONLY)
        if fd < 0:
            return
        try:
            host_directory.sync(fd, data_only=data_only)
        finally:
            if closes:
                os.close(fd)

    def allocate(self, ino: int, handle: int, mode: int, offset: int, length: int) -> None:
        """See `PyFilesystem`."""
        fd, closes = self._descriptor(self._raised(ino), handle, os.O_WRONLY)
        try:
            host_directory.allocate(fd, mode, offset, length)
        finally:
            if closes:
                os.close(fd)

    def seek(self, ino: int, handle: int, offset: int, whence: int) -> int:
        """See `PyFilesystem`; a lower file is all data."""
        node = self._node(ino)
        fd, closes = self._descriptor(node, handle, os.O_RDONLY)
        if fd < 0:
            size = self._tree.lower.stat(node.lower).size
            if offset >= size:
                raise OSError(errno.ENXIO, "past the end of the file")
            return offset if whence == os.SEEK_DATA else size
        try:
            return os.lseek(fd, offset, whence)
        finally:
            if closes:
                os.close(fd)

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
        """See `PyFilesystem`; from a lower file the kernel copies by reading and writing."""
        source_fd = self.descriptor(handle)
        target_fd = self.descriptor(target_handle)
        if source_fd is None or source_fd < 0 or target_fd is None or target_fd < 0:
            raise OSError(errno.EXDEV, "not both in the upper directory")
        return os.copy_file_range(source_fd, target_fd, length, offset, target_offset)

    # ---------------------------------------------------------------- changes

    def change_attributes(self, ino: int, handle: int | None, changes: Changes) -> Stat:
        """See `PyFilesystem`."""
        node = self._raised(ino, changes.size)
        host_directory.change_attributes(node.upper, None, changes)
        return self._tree.status(node)

    def set_xattr(self, ino: int, name: bytes, value: memoryview, flags: int) -> None:
        """See `PyFilesystem`."""
        if is_private(name):
            raise OSError(errno.ENOTSUP, "an attribute of the overlay itself")
        host_directory.set_xattr(self._raised(ino).upper, name, value, flags)

    def remove_xattr(self, ino: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        if is_private(name):
            raise OSError(errno.ENODATA, "no such attribute")
        self.get_xattr(ino, name)  # what is not there needs no copy
        host_directory.remove_xattr(self._raised(ino).upper, name)

    def make_node(self, parent: int, name: bytes, mode: int, rdev: int, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        self._changing()
        if mode_bits.S_ISCHR(mode) and rdev == 0:
            raise OSError(errno.EPERM, "character device 0:0 is the sign of a removed name")

        def make(temporary: bytes, directory: int) -> None:
            kind = mode_bits.S_IFMT(mode) or mode_bits.S_IFREG
            os.mknod(temporary, kind | 0o600, host_device(rdev), dir_fd=directory)

        return self._made(parent, name, mode, caller, make)

    def make_directory(self, parent: int, name: bytes, mode: int, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        self._changing()

        def make(temporary: bytes, directory: int) -> None:
            os.mkdir(temporary, 0o700, dir_fd=directory)

        kind = mode_bits.S_IFDIR
        return self._made(parent, name, kind | mode_bits.S_IMODE(mode), caller, make)

    def make_symlink(self, parent: int, name: bytes, target: bytes, caller: Caller) -> Stat:
        """See `PyFilesystem`."""
        self._changing()

        def make(temporary: bytes, directory: int) -> None:
            os.symlink(target, temporary, dir_fd=directory)

        return self._made(parent, name, mode_bits.S_IFLNK | 0o777, caller, make)

    def _made(self, parent: int, name: bytes, mode: int, caller: Caller, make: MakeFile) -> Stat:
        with self._tree.lock:
            return self._told(self._names.make(parent, name, mode, caller, make))

    def create_file(
        self, parent: int, name: bytes, mode: int, flags: int, caller: Caller
    ) -> tuple[Stat, Opened]:
        """See `PyFilesystem`."""
        self._changing()
        with self._tree.lock:
            node = self._tree.find(self._node(parent), name)
        if node is not None:
            if flags & os.O_EXCL:
                raise OSError(errno.EEXIST, f"{name!r} exists")
            opened = self.open_file(node.number, flags)
            with self._tree.lock:
                return self._told(node), opened

        def make(temporary: bytes, directory: int) -> None:
            os.mknod(temporary, mode_bits.S_IFREG | 0o600, dir_fd=directory)

        with self._tree.lock:
            kind = mode_bits.S_IFREG | mode_bits.S_IMODE(mode)
            node = self._names.make(parent, name, kind, caller, make)
            return self._told(node), self._opened(node, flags & ~os.O_TRUNC)

    def make_link(self, ino: int, parent: int, name: bytes) -> Stat:
        """See `PyFilesystem`."""
        self._changing()
        node = self._names.link(ino, parent, name)
        with self._tree.lock:
            return self._told(node)

    def remove_file(self, parent: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        self._changing()
        self._names.remove_file(parent, name)

    def remove_directory(self, parent: int, name: bytes) -> None:
        """See `PyFilesystem`."""
        self._changing()
        self._names.remove_directory(parent, name)

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """See `PyFilesystem`."""
        self._changing()
        self._names.rename(parent, name, new_parent, new_name, flags)
