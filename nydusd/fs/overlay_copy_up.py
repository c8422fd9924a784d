"""Copying what is in the lower tree up, so that it can be changed.

A file is copied whole, with mode, owner, time, attributes and holes, into the work directory,
brought to the disk, and then moved to its name in one step: nobody ever sees half of it, however
the daemon ends. Data is copied without the tree's lock, once for all who wait for the same file;
files that are open for reading then read the copy. The directories above are made the same way.
All names of a file that has several in the image are linked to the one copy.
"""

import contextlib
import errno
import logging
import os
import stat as mode_bits
from collections.abc import Iterator
from typing import Protocol

from nydusd.fs import host_directory
from nydusd.fs.host_directory import NAME_ONLY, by_descriptor, host_device
from nydusd.fs.overlay_merge import MergedTree
from nydusd.fs.overlay_nodes import Node
from nydusd.fs.overlay_upper import GROUP_PREFIX, NOREPLACE, is_private
from nydusd.fs.stat import Stat

logger = logging.getLogger("nydusd")

PIECE_BYTES = 1 << 20


class OpenFiles(Protocol):
    """Where handles of open files lead."""

    def set_descriptor(self, handle: int, fd: int) -> None:
        """Have *handle* read *fd* from now on, and own it."""


class CopyUp:
    """Brings nodes of *tree* into the upper directory; any thread."""

    def __init__(self, tree: MergedTree, files: OpenFiles) -> None:
        self._tree = tree
        self._files = files

    def bring(self, node: Node, size: int | None = None) -> None:
        """See that *node* is in the upper directory; `OSError`, and then nothing has changed.

        Of a file only the first *size* bytes are copied, where somebody is about to cut it there.
        Waits for the image's data; not to be called with the tree's lock held.
        """
        if node.upper >= 0:
            return
        with node.lock:
            if node.upper >= 0:
                return
            if node.is_directory:
                with self._tree.lock:
                    self.bring_directory(node)
            else:
                self._bring_file(node, size)

    def bring_directory(self, directory: Node) -> None:
        """As `bring`, for a directory and those above it; with the tree's lock held."""
        missing = []
        current: Node | None = directory
        while current is not None and current.upper < 0:
            missing.append(current)
            current = current.parent
        for node in reversed(missing):
            self._make_directory(node)

    def _make_directory(self, node: Node) -> None:
        if node.gone or node.parent is None:
            raise OSError(errno.ENOENT, "the directory has been removed")
        upper = self._tree.upper
        status = self._tree.lower.stat(node.lower)
        temporary = upper.temporary()
        os.mkdir(temporary, 0o700, dir_fd=upper.work)
        fd = -1
        try:
            fd = os.open(temporary, NAME_ONLY, dir_fd=upper.work)
            self._copy_attributes(node.lower, status, by_descriptor(fd))
            with keeps_times(node.parent):
                upper.place(temporary, node.parent.upper, node.name, NOREPLACE)
        except BaseException:
            if fd >= 0:
                os.close(fd)
            upper.sweep(temporary)
            raise
        self._tree.nodes.put_up(node, fd, os.fstat(fd).st_ino)

    # ---------------------------------------------------------------- files

    def _bring_file(self, node: Node, size: int | None) -> None:
        upper = self._tree.upper
        status = self._tree.lower.stat(node.lower)
        with self._tree.lock:
            temporary = upper.temporary()
            names = self._tree.group(node.lower) if status.nlink > 1 else []
        fd = -1
        try:
            self._make_file(node, status, temporary, size)
            fd = os.open(temporary, NAME_ONLY, dir_fd=upper.work)
            self._copy_attributes(node.lower, status, by_descriptor(fd))
            if node.is_regular and status.size and size != 0:
                # On the disk before the name leads to it: a power cut leaves all of it or nothing.
                host_directory.sync_inode(fd, data_only=True)
            with self._tree.lock:
                readers = self._open_readers(node, fd)
                try:
                    self._put_in_place(node, temporary, names)
                except BaseException:
                    for reader in readers.values():
                        os.close(reader)
                    raise
                self._tree.nodes.put_up(node, fd, os.fstat(fd).st_ino)
                for handle, reader in readers.items():
                    self._files.set_descriptor(handle, reader)
                node.handles.clear()
        except BaseException:
            if fd >= 0 and node.upper != fd:
                os.close(fd)
            upper.sweep(temporary)
            raise

    def _make_file(self, node: Node, status: Stat, temporary: bytes, size: int | None) -> None:
        """Make a file of the work directory with what *node* has in it."""
        work = self._tree.upper.work
        if node.kind == mode_bits.S_IFLNK:
            os.symlink(self._tree.lower.read_link(node.lower), temporary, dir_fd=work)
        elif node.is_regular:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(temporary, flags, 0o600, dir_fd=work)
            try:
                self._copy_data(node, fd, status.size if size is None else min(size, status.size))
            finally:
                os.close(fd)
        else:
            os.mknod(temporary, node.kind | 0o600, host_device(status.rdev), dir_fd=work)

    def _copy_data(self, node: Node, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        done = 0
        while done < size:
            count = self._tree.lower.copy(node.lower, done, min(PIECE_BYTES, size - done), fd)
            if count == 0:
                raise OSError(errno.EIO, f"inode {node.lower} of the image ends at {done}")
            done += count

    def _open_readers(self, node: Node, fd: int) -> dict[int, int]:
        """A descriptor of the copy for each handle that reads the lower file."""
        readers: dict[int, int] = {}
        try:
            for handle in node.handles:
                readers[handle] = host_directory.open_again(fd, os.O_RDONLY)
        except BaseException:
            for reader in readers.values():
                os.close(reader)
            raise
        return readers

    def _put_in_place(self, node: Node, temporary: bytes, names: list[list[bytes]]) -> None:
        """Let the name, or all of them, lead to the copy; a file without any keeps none."""
        upper = self._tree.upper
        if node.gone or node.parent is None:
            upper.sweep(temporary)
            return
        self.bring_directory(node.parent)
        if len(names) < 2:
            with keeps_times(node.parent):
                upper.place(temporary, node.parent.upper, node.name, NOREPLACE)
            return
        group = GROUP_PREFIX + b"%d" % node.lower
        upper.place(temporary, upper.work, group)
        try:
            self._link(group, node.parent, node.name)
        except BaseException:
            upper.sweep(group)
            raise
        self.link_group(node.lower, group, names)

    def _link(self, group: bytes, parent: Node, name: bytes) -> None:
        work = self._tree.upper.work
        with keeps_times(parent):
            os.link(group, name, src_dir_fd=work, dst_dir_fd=parent.upper, follow_symlinks=False)

    def link_group(self, lower: int, group: bytes, names: list[list[bytes]]) -> None:
        """Link the copy *group* of the work directory to every name that still shows *lower*.

        With the tree's lock held. A name that cannot be linked shows the file of the image, with
        the same content so far; what a crash leaves undone, `finish_group` does.
        """
        for path in names:
            parent = self._walk(path[:-1])
            below = None if parent is None else self._tree.lower_child(parent, path[-1])
            if parent is None or below is None or below.ino != lower:
                continue
            try:
                self.bring_directory(parent)
                self._link(group, parent, path[-1])
            except FileExistsError:
                pass  # it has been linked, replaced or removed
            except OSError as exc:
                logger.warning("%r is no hard link any more: %s", b"/".join(path), exc)
            self._tree.nodes.drop(parent)
        self._tree.upper.sweep(group)

    def finish_group(self, group: bytes) -> None:
        """Link a copy that a former daemon had made and not given all its names."""
        with self._tree.lock:
            lower = int(group[len(GROUP_PREFIX) :])
            self.link_group(lower, group, self._tree.group(lower))

    def _walk(self, path: list[bytes]) -> Node | None:
        """The directory at *path*, None when it is not there any more."""
        node = self._tree.nodes.root
        for name in path:
            child = self._tree.find(node, name)
            if child is None or not child.is_directory:
                return None
            node = child
        return node

    # ---------------------------------------------------------------- attributes

    def _copy_attributes(self, lower: int, status: Stat, path: bytes) -> None:
        """Give the file at *path* what the lower inode has; the time last, for all else sets it."""
        os.chown(path, status.uid, status.gid)
        if not mode_bits.S_ISLNK(status.mode):
            os.chmod(path, mode_bits.S_IMODE(status.mode))  # noqa: PTH101
        for name in self._tree.lower.list_xattrs(lower):
            if is_private(name):
                continue
            try:
                os.setxattr(path, name, self._tree.lower.get_xattr(lower, name))
            except OSError as exc:
                if exc.errno != errno.ENOTSUP:
                    raise
                logger.warning("the upper directory cannot hold attribute %r", name)
        os.utime(path, ns=(status.mtime_ns, status.mtime_ns))


@contextlib.contextmanager
def keeps_times(directory: Node) -> Iterator[None]:
    """Leave the times of *directory* as they are: that a name is copied up changes nothing."""
    before = os.fstat(directory.upper)
    yield
    os.utime(directory.upper_path, ns=(before.st_atime_ns, before.st_mtime_ns))
