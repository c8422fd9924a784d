"""Making, removing, moving and linking names of an overlay.

Each is one step on the disk, prepared in the work directory: a new file is complete before it has
its name, and what is removed leaves its name together with the whiteout that takes it. The order of
steps, where there are two, is that of the kernel's overlayfs: what may be left after a crash is a
whiteout over nothing or an empty directory, never a lower file that had been removed. Any thread;
the tree's lock is held but while data is copied up.
"""

import errno
import os
import stat as mode_bits
from collections.abc import Callable

from nydusd.fs import host_directory
from nydusd.fs.host_directory import NAME_ONLY, by_descriptor
from nydusd.fs.overlay_copy_up import CopyUp
from nydusd.fs.overlay_merge import MergedTree
from nydusd.fs.overlay_nodes import Node
from nydusd.fs.overlay_upper import EXCHANGE, NOREPLACE, WHITEOUT, is_whiteout
from nydusd.fs.stat import Caller

FULL = (errno.ENOSPC, errno.EDQUOT)


class Names:
    """Changes to the names of *tree*."""

    def __init__(self, tree: MergedTree, copy_up: CopyUp) -> None:
        self._tree = tree
        self._copy_up = copy_up

    # ---------------------------------------------------------------- what both layers have

    def _directory(self, number: int) -> Node:
        """The directory *number*, brought up."""
        node = self._tree.nodes.node(number)
        if not node.is_directory:
            raise OSError(errno.ENOTDIR, "not a directory")
        if node.gone:
            raise OSError(errno.ENOENT, "the directory has been removed")
        self._copy_up.bring_directory(node)
        return node

    def _existing(self, parent: int, name: bytes) -> tuple[Node, Node]:
        """The node that a name leads to, and its directory."""
        directory = self._tree.nodes.node(parent)
        node = self._tree.find(directory, name)
        if node is None:
            raise OSError(errno.ENOENT, f"no {name!r}")
        return directory, node

    def _upper_kind(self, directory: Node, name: bytes) -> int:
        """The S_IFMT bits of what the upper directory has, 0 = a whiteout, -1 = nothing."""
        if directory.upper < 0:
            return -1
        found = self._tree.upper.look(directory.upper, name)
        if found is None:
            return -1
        os.close(found.fd)
        mode = found.status.st_mode
        return 0 if is_whiteout(mode, found.status.st_rdev) else mode_bits.S_IFMT(mode)

    def _covers(self, directory: Node, name: bytes) -> bool:
        """Whether something lower would show if *name* were missing in the upper directory."""
        return self._tree.lower_child(directory, name) is not None

    # ---------------------------------------------------------------- making

    def make(
        self,
        parent: int,
        name: bytes,
        mode: int,
        caller: Caller,
        make: Callable[[bytes, int], None],
    ) -> Node:
        """A new inode called *name*, with the type and permissions of *mode*.

        *make(name, directory)* makes it in the work directory. `OSError(EEXIST)`.
        """
        with self._tree.lock:
            directory = self._directory(parent)
            kind = self._upper_kind(directory, name)
            if kind > 0 or (kind < 0 and self._covers(directory, name)):
                raise OSError(errno.EEXIST, f"{name!r} exists")
            upper = self._tree.upper
            temporary = upper.temporary()
            fd = -1
            try:
                make(temporary, upper.work)
                fd = os.open(temporary, NAME_ONLY, dir_fd=upper.work)
                self._own(fd, mode, directory, caller)
                if kind == 0 and mode_bits.S_ISDIR(mode):
                    upper.set_opaque(fd)
                    upper.place(temporary, directory.upper, name, EXCHANGE)
                else:
                    flags = 0 if kind == 0 else NOREPLACE
                    upper.place(temporary, directory.upper, name, flags)
            except BaseException:
                if fd >= 0:
                    os.close(fd)
                upper.sweep(temporary)
                raise
            ino = os.fstat(fd).st_ino
            nodes = self._tree.nodes
            node = nodes.add(mode_bits.S_IFMT(mode), directory, name, lower=0, upper_ino=ino)
            nodes.put_up(node, fd, ino)
            return node

    def _own(self, fd: int, mode: int, directory: Node, caller: Caller) -> None:
        """Owner and permissions of a new file, as a local file system would set them."""
        above = os.fstat(directory.upper)
        gid = caller.gid
        if above.st_mode & mode_bits.S_ISGID:
            gid = above.st_gid
            if mode_bits.S_ISDIR(mode):
                mode |= mode_bits.S_ISGID
        os.chown(by_descriptor(fd), caller.uid, gid)
        if not mode_bits.S_ISLNK(mode):
            os.chmod(by_descriptor(fd), mode_bits.S_IMODE(mode))  # noqa: PTH101

    def link(self, number: int, parent: int, name: bytes) -> Node:
        """Another *name* for the file *number*."""
        with self._tree.lock:
            node = self._tree.nodes.node(number)
        self._copy_up.bring(node)
        with self._tree.lock:
            directory = self._directory(parent)
            kind = self._upper_kind(directory, name)
            if kind > 0 or (kind < 0 and self._covers(directory, name)):
                raise OSError(errno.EEXIST, f"{name!r} exists")
            upper = self._tree.upper
            if kind == 0:
                temporary = upper.temporary()
                host_directory.make_link(node.upper, upper.work, temporary)
                upper.place(temporary, directory.upper, name)
            else:
                host_directory.make_link(node.upper, directory.upper, name)
            self._tree.nodes.move(node, directory, name)
            return node

    # ---------------------------------------------------------------- removing

    def remove_file(self, parent: int, name: bytes) -> None:
        """Remove a name that is not a directory."""
        self._separate(parent, name)
        with self._tree.lock:
            directory, node = self._existing(parent, name)
            if node.is_directory:
                raise OSError(errno.EISDIR, f"{name!r} is a directory")
            self._directory(parent)
            if self._covers(directory, name):
                self._tree.upper.hide(directory.upper, name)
            else:
                os.unlink(name, dir_fd=directory.upper)
            self._left(node)

    def _separate(self, parent: int, name: bytes) -> None:
        """Bring up a file of several names that is about to lose one: its links are counted there.

        With a full disk it goes without: a removed name must make room, and the number of links
        that the image shows for the others is then too high.
        """
        with self._tree.lock:
            _, node = self._existing(parent, name)
            if node.upper >= 0 or node.is_directory or self._tree.lower.stat(node.lower).nlink < 2:
                return
        try:
            self._copy_up.bring(node)
        except OSError as exc:
            if exc.errno not in FULL:
                raise

    def _left(self, node: Node) -> None:
        """Note that a name of *node* is gone."""
        if node.upper >= 0:
            if node.is_directory or os.fstat(node.upper).st_nlink == 0:
                self._tree.nodes.bury(node)
        elif self._tree.lower.stat(node.lower).nlink < 2:
            self._tree.nodes.bury(node)
        self._tree.nodes.drop(node)

    def remove_directory(self, parent: int, name: bytes) -> None:
        """Remove an empty directory; in the upper one it may have whiteouts in it."""
        with self._tree.lock:
            directory, node = self._existing(parent, name)
            self._refuse_full(node)
            self._directory(parent)
            self._take(directory, name, has_upper=node.upper >= 0)
            self._left(node)

    def _refuse_full(self, node: Node) -> None:
        if not node.is_directory:
            raise OSError(errno.ENOTDIR, "not a directory")
        if self._tree.entries(node):
            raise OSError(errno.ENOTEMPTY, "the directory is not empty")

    def _take(self, directory: Node, name: bytes, *, has_upper: bool) -> None:
        """Remove an empty directory from its name."""
        if not self._covers(directory, name):
            self._tree.upper.take_away(directory.upper, name)
        elif has_upper:
            self._tree.upper.hide_directory(directory.upper, name)
        else:
            self._tree.upper.hide(directory.upper, name)

    # ---------------------------------------------------------------- moving

    def rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Move *name*, as renameat2(2) with *flags* does.

        `OSError(EXDEV)` for a directory with a lower one behind it, as the kernel's overlayfs has
        it by default: whoever moves it copies and removes then.
        """
        if flags & ~(NOREPLACE | EXCHANGE) or flags == NOREPLACE | EXCHANGE:
            raise OSError(errno.EINVAL, f"rename with flags {flags:#x}")
        self._bring_for_rename(parent, name, new_parent, new_name, flags)
        with self._tree.lock:
            _, node = self._existing(parent, name)
            self._refuse_merged(node)
            directory, new_directory = self._directory(parent), self._directory(new_parent)
            target = self._tree.find(new_directory, new_name)
            if flags & EXCHANGE:
                self._exchange(directory, name, node, new_directory, new_name, target)
                return
            if target is node:
                return
            if target is not None:
                if flags & NOREPLACE:
                    raise OSError(errno.EEXIST, f"{new_name!r} exists")
                self._refuse_target(node, target)
            if node.is_directory:
                self._move_directory(directory, name, node, new_directory, new_name, target)
            else:
                left = WHITEOUT if self._covers(directory, name) else 0
                host_directory.rename(directory.upper, name, new_directory.upper, new_name, left)
            self._tree.nodes.move(node, new_directory, new_name)
            if target is not None:
                self._left(target)

    def _bring_for_rename(
        self, parent: int, name: bytes, new_parent: int, new_name: bytes, flags: int
    ) -> None:
        """Copy up what is moved, and a file that loses one of several names."""
        with self._tree.lock:
            _, node = self._existing(parent, name)
            self._refuse_merged(node)
            target = self._tree.find(self._tree.nodes.node(new_parent), new_name)
            if target is not None and not flags & EXCHANGE:
                self._refuse_target(node, target)
        self._copy_up.bring(node)
        if target is None or target is node:
            return
        if flags & EXCHANGE:
            self._refuse_merged(target)
            self._copy_up.bring(target)
        elif not target.is_directory and not flags & NOREPLACE:
            self._separate(new_parent, new_name)

    def _refuse_merged(self, node: Node) -> None:
        if node.is_directory and node.lower:
            raise OSError(errno.EXDEV, "a directory of the image is copied, not moved")

    def _refuse_target(self, node: Node, target: Node) -> None:
        """`OSError` where *node* cannot take the place of *target*."""
        if node.is_directory:
            self._refuse_full(target)
        elif target.is_directory:
            raise OSError(errno.EISDIR, "a file cannot replace a directory")

    def _move_directory(
        self,
        directory: Node,
        name: bytes,
        node: Node,
        new_directory: Node,
        new_name: bytes,
        target: Node | None,
    ) -> None:
        """Move a directory that is only in the upper tree, over an empty one or over nothing."""
        upper = self._tree.upper
        covered = self._covers(directory, name)
        if self._covers(new_directory, new_name):
            upper.set_opaque(node.upper)
        if target is not None:
            self._copy_up.bring_directory(target)
            # For the moment in which it is at the old name: nothing lower may show in it there.
            upper.set_opaque(target.upper)
        if self._upper_kind(new_directory, new_name) < 0:
            left = WHITEOUT if covered else 0
            host_directory.rename(directory.upper, name, new_directory.upper, new_name, left)
            return
        host_directory.rename(directory.upper, name, new_directory.upper, new_name, EXCHANGE)
        if target is not None:
            self._take(directory, name, has_upper=True)
        elif not covered:
            os.unlink(name, dir_fd=directory.upper)  # the whiteout that was at the new name

    def _exchange(
        self,
        directory: Node,
        name: bytes,
        node: Node,
        new_directory: Node,
        new_name: bytes,
        target: Node | None,
    ) -> None:
        if target is None:
            raise OSError(errno.ENOENT, f"no {new_name!r}")
        self._refuse_merged(target)
        for moved, place, called in (
            (node, new_directory, new_name),
            (target, directory, name),
        ):
            if moved.is_directory and self._covers(place, called):
                self._tree.upper.set_opaque(moved.upper)
        host_directory.rename(directory.upper, name, new_directory.upper, new_name, EXCHANGE)
        self._tree.nodes.move(node, new_directory, new_name)
        self._tree.nodes.move(target, directory, name)
