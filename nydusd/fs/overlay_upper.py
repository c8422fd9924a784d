"""The upper directory of an overlay: what is written there, in the way the kernel's overlayfs does.

A name that is gone is a character device 0:0; a directory that hides the lower one of its name has
the attribute `trusted.overlay.opaque` (or `user.overlay.opaque`) with the value "y" (linux:
Documentation/filesystems/overlayfs.rst, "whiteouts and opaque directories"). So the same directory
can be mounted by the kernel, and by nydus, whose own name of the attribute is read as well.

Whatever is made is made in the work directory, whole, and then moved to its name: after a crash
each name is as it was before or as it should be. What lies in the work directory afterwards is
swept away by the next mount. Directories are descriptors, never paths: a link that somebody puts in
a directory's place leads nowhere. Called with the tree's lock held, but for `copy_target`.
"""

import contextlib
import errno
import fcntl
import os
import stat as mode_bits
from pathlib import Path

from nydusd.base.errors import MountError
from nydusd.base.record import NamedTuple
from nydusd.fs import host_directory
from nydusd.fs.host_directory import by_descriptor, list_directory

NOREPLACE, EXCHANGE, WHITEOUT = 1, 2, 4  # RENAME_* (linux: include/uapi/linux/fs.h)
WORK_NAME = "work"  # in the work directory, as the kernel's overlayfs calls it
GROUP_PREFIX = b"#group-"  # of a copied file whose other names are not all linked yet
OPAQUE_NAMES = ("trusted.overlay.opaque", "user.overlay.opaque", "user.fuseoverlayfs.opaque")
WRITTEN_OPAQUE_NAMES = OPAQUE_NAMES[:2]
PRIVATE_PREFIXES = (b"trusted.overlay.", b"user.overlay.", b"user.fuseoverlayfs.")
# What only a kernel mount with these features could read: not followed, not ignored.
FOREIGN_MARKS = {
    mode_bits.S_IFDIR: "trusted.overlay.redirect",
    mode_bits.S_IFREG: "trusted.overlay.metacopy",
}
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Found(NamedTuple):
    """What a name in the upper directory is; *fd* (O_PATH) belongs to whoever gets it."""

    fd: int
    status: os.stat_result


class Named(NamedTuple):
    """One name of an upper directory."""

    name: bytes
    ino: int
    kind: int  # S_IFMT bits, 0 = a whiteout


def is_private(name: bytes) -> bool:
    """Whether an attribute is the overlay's own: it is neither shown, copied nor changed."""
    return name.startswith(PRIVATE_PREFIXES)


def is_whiteout(mode: int, rdev: int) -> bool:
    """Whether a file says that its name is gone."""
    return mode_bits.S_ISCHR(mode) and rdev == 0


def _mount_of(fd: int) -> str:
    """The number of the kernel mount that *fd* is in."""
    with Path(f"/proc/self/fdinfo/{fd}").open() as lines:
        for line in lines:
            if line.startswith("mnt_id:"):
                return line.split()[1]
    return ""


class UpperLayer:
    """The upper directory and its work directory, open; `close` ends it.

    `MountError` when the two cannot be what an overlay needs. Nothing is written before `begin`.
    """

    def __init__(self, upper_dir: str, work_dir: str) -> None:
        self._upper_dir, self._work_dir = upper_dir, work_dir
        self._fds: list[int] = []
        self._work = -1
        self._last_temporary = 0
        self._opaque_name = WRITTEN_OPAQUE_NAMES[0]
        try:
            self.root = self._open(upper_dir, "upper_dir")
            self._work_root = self._open(work_dir, "work_dir")
            self._check_places()
        except BaseException:
            self.close()
            raise
        self.device = os.fstat(self.root).st_dev

    def _open(self, path: str, key: str) -> int:
        if not path:
            raise MountError(f"overlay.{key} is empty: it must name a directory")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as exc:
            raise MountError(f"overlay.{key} {path!a} cannot be opened: {exc}") from exc
        self._fds.append(fd)
        return fd

    def _check_places(self) -> None:
        upper = Path(self._upper_dir).resolve()
        work = Path(self._work_dir).resolve()
        both = f"overlay.upper_dir {str(upper)!a} and overlay.work_dir {str(work)!a}"
        if upper == work or upper in work.parents or work in upper.parents:
            raise MountError(f"{both}: neither may lie inside the other")
        if os.fstat(self.root).st_dev != os.fstat(self._work_root).st_dev:
            raise MountError(f"{both} must be on one file system")
        if _mount_of(self.root) != _mount_of(self._work_root):
            raise MountError(f"{both} must be in one mount: files are moved between them")

    def begin(self) -> list[bytes]:
        """Take the directories for this process and see that they can hold an overlay.

        `MountError` when another process has them, or what the overlay is made of cannot be made.
        The copied files of hard-link groups that a crash has left, to be given to `finish_group`.
        """
        for fd, path in zip(self._fds, (self._upper_dir, self._work_dir), strict=False):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as exc:
                raise MountError(f"{path!a} is in use by another overlay: {exc}") from exc
        with contextlib.suppress(FileExistsError):
            os.mkdir(WORK_NAME, 0o700, dir_fd=self._work_root)
        self._work = os.open(WORK_NAME, DIRECTORY_FLAGS, dir_fd=self._work_root)
        self._fds.append(self._work)
        groups = []
        for name in os.listdir(self._work):  # noqa: PTH208 - a descriptor
            raw = os.fsencode(name)
            if raw.startswith(GROUP_PREFIX) and raw[len(GROUP_PREFIX) :].isdigit():
                groups.append(raw)
            else:
                self.sweep(raw)
        self._check_abilities()
        return groups

    def _check_abilities(self) -> None:
        """Try in the work directory everything that an overlay is made of."""
        step = "whiteouts (character device 0:0) cannot be made"
        names: list[bytes] = []
        try:
            names = [self.temporary(), self.temporary()]
            self._make_whiteout(names[0])
            step = "directories cannot be made"
            os.mkdir(names[1], 0o700, dir_fd=self._work)
            step = "names cannot be exchanged (renameat2 with RENAME_EXCHANGE)"
            host_directory.rename(self._work, names[0], self._work, names[1], EXCHANGE)
            step = "a whiteout cannot be left behind (renameat2 with RENAME_WHITEOUT)"
            names.append(self.temporary())
            host_directory.rename(self._work, names[0], self._work, names[2], WHITEOUT)
            step = "neither trusted. nor user. extended attributes can be set"
            fd = os.open(names[2], DIRECTORY_FLAGS, dir_fd=self._work)
            try:
                self._opaque_name = self._settable_opaque_name(fd)
            finally:
                os.close(fd)
        except OSError as exc:
            raise MountError(f"overlay.work_dir {self._work_dir!a}: {step}: {exc}") from exc
        finally:
            for name in names:
                self.sweep(name)

    def _settable_opaque_name(self, fd: int) -> str:
        try:
            os.setxattr(fd, WRITTEN_OPAQUE_NAMES[0], b"y")
        except OSError:
            os.setxattr(fd, WRITTEN_OPAQUE_NAMES[1], b"y")
            return WRITTEN_OPAQUE_NAMES[1]
        return WRITTEN_OPAQUE_NAMES[0]

    def close(self) -> None:
        """Let go of the directories."""
        while self._fds:
            os.close(self._fds.pop())

    # ---------------------------------------------------------------- looking

    def look(self, directory: int, name: bytes) -> Found | None:
        """What is called *name*, whiteouts as well; None when the directory has no such name.

        `OSError(EIO)` for what lies on another file system: nothing could be moved to it.
        """
        try:
            fd = host_directory.look(directory, name)
        except FileNotFoundError:
            return None
        try:
            status = os.fstat(fd)
        except BaseException:
            os.close(fd)
            raise
        if status.st_dev != self.device:
            os.close(fd)
            raise OSError(errno.EIO, f"{name!r} of upper_dir is another file system")
        return Found(fd, status)

    def is_opaque(self, fd: int) -> bool:
        """Whether the directory behind *fd* hides the lower one of its name."""
        path = by_descriptor(fd)
        return any(_mark(path, name) == b"y" for name in OPAQUE_NAMES)

    def refuse_foreign(self, fd: int, kind: int) -> None:
        """`OSError(EIO)` for what only a kernel mount with more features can read.

        A moved directory (redirect_dir=on) would show the entries of another one, a file without
        data (metacopy=on) nothing but zeros.
        """
        mark = FOREIGN_MARKS.get(kind)
        if mark is not None and _mark(by_descriptor(fd), mark) is not None:
            raise OSError(
                errno.EIO,
                f"a file of upper_dir has {mark}: it was written by a kernel mount with "
                "redirect_dir=on or metacopy=on, which this overlay cannot read",
            )

    def names(self, directory: int) -> list[Named]:
        """Every name in the directory behind the O_PATH descriptor *directory*."""
        fd = host_directory.open_again(directory, os.O_RDONLY | os.O_DIRECTORY)
        found = []
        try:
            while listed := list_directory(fd):
                for name, ino, _, kind in listed:
                    if name not in (b".", b".."):
                        found += _named(fd, name, ino, kind)
        finally:
            os.close(fd)
        return found

    # ---------------------------------------------------------------- making

    def temporary(self) -> bytes:
        """A name that the work directory does not have."""
        self._last_temporary += 1
        return b"#%x" % self._last_temporary

    @property
    def work(self) -> int:
        """The work directory, open, where new files are made."""
        return self._work

    def _make_whiteout(self, name: bytes) -> None:
        os.mknod(name, mode_bits.S_IFCHR, 0, dir_fd=self._work)

    def set_opaque(self, fd: int) -> None:
        """Have the directory behind *fd* hide the lower one of its name."""
        os.setxattr(by_descriptor(fd), self._opaque_name, b"y")

    def hide(self, directory: int, name: bytes) -> None:
        """Put a whiteout at *name*, in the place of a file or of nothing."""
        temporary = self.temporary()
        self._make_whiteout(temporary)
        try:
            host_directory.rename(self._work, temporary, directory, name, 0)
        except BaseException:
            self.sweep(temporary)
            raise

    def hide_directory(self, directory: int, name: bytes) -> None:
        """Put a whiteout in the place of the directory *name*, and sweep that away."""
        temporary = self.temporary()
        self._make_whiteout(temporary)
        try:
            host_directory.rename(self._work, temporary, directory, name, EXCHANGE)
        finally:
            self.sweep(temporary)

    def take_away(self, directory: int, name: bytes) -> None:
        """Remove the directory *name* with the whiteouts in it."""
        temporary = self.temporary()
        host_directory.rename(directory, name, self._work, temporary, 0)
        self.sweep(temporary)

    def place(self, temporary: bytes, directory: int, name: bytes, flags: int = 0) -> None:
        """Move what was made as *temporary* to its name; it is swept away when that fails."""
        try:
            host_directory.rename(self._work, temporary, directory, name, flags)
        except BaseException:
            self.sweep(temporary)
            raise
        if flags & EXCHANGE:  # what was there is in the work directory now
            self.sweep(temporary)

    def sweep(self, name: bytes) -> None:
        """Remove *name* from the work directory with all that is in it, if it is there.

        What cannot be removed is left to the next mount: nobody sees it.
        """
        with contextlib.suppress(OSError):
            try:
                os.unlink(name, dir_fd=self._work)
            except IsADirectoryError:
                _remove_tree(self._work, name)


def _mark(path: bytes, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name)
    except OSError as exc:
        if exc.errno in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
            return None
        raise


def _named(directory: int, name: bytes, ino: int, kind: int) -> list[Named]:
    """What a listing says of *name*; nothing when it has just gone."""
    if kind not in (0, mode_bits.S_IFCHR >> 12):
        return [Named(name, ino, kind << 12)]
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return []
    hides = is_whiteout(status.st_mode, status.st_rdev)
    return [Named(name, ino, 0 if hides else mode_bits.S_IFMT(status.st_mode))]


def _remove_tree(directory: int, name: bytes) -> None:
    """Remove a directory of the work directory; deep ones without recursion."""
    # Its first level is moved up and emptied in turn: no path gets longer than one name.
    pending = [name]
    counter = 0
    while pending:
        current = pending[-1]
        fd = os.open(current, DIRECTORY_FLAGS, dir_fd=directory)
        inner = []
        try:
            for child in os.listdir(fd):  # noqa: PTH208 - a descriptor
                try:
                    os.unlink(child, dir_fd=fd)
                except IsADirectoryError:
                    counter += 1
                    moved = b"%s.%d.%d" % (name[:64], len(pending), counter)
                    os.rename(child, moved, src_dir_fd=fd, dst_dir_fd=directory)
                    inner.append(moved)
        finally:
            os.close(fd)
        pending.pop()
        os.rmdir(current, dir_fd=directory)
        pending += inner
