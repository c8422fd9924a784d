"""Files of a host directory, by descriptors: no path is ever walked twice, and no link followed.

Everything begins with a descriptor opened with O_PATH, which names an inode whatever becomes of its
name. A name is looked up in a directory's descriptor, without following symbolic links, so that
nothing leads out of the directory that was opened first. To read, write or change an inode its
descriptor is opened again by way of /proc/self/fd. Any thread; all may wait for a disk. Failures
are `OSError`s. Names are of one directory: never with a slash, "." or "..".
"""

import errno
import os
import stat as mode_bits
from typing import Final

from nydusd.fs import host_calls
from nydusd.fs.host_calls import ActingAs, list_directory
from nydusd.fs.stat import NOW, Caller, Changes, Stat, Statistics

__all__ = ["list_directory"]

NAME_ONLY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Flags of open(2) that are the mount's business and not the host's: the kernel has dealt with them,
# or the host would want buffers of its own kind (O_DIRECT) or write where it is not asked to
# (O_APPEND: see `write`).
NOT_PASSED: Final = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_DIRECT | os.O_APPEND | os.O_NOCTTY


def open_root(path: str | bytes) -> int:
    """A descriptor of the directory *path*; what it leads to is opened, also through links."""
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def look(directory: int, name: bytes) -> int:
    """A descriptor of *name* itself, of whatever kind; `FileNotFoundError`."""
    return os.open(name, NAME_ONLY, dir_fd=directory)


def by_descriptor(fd: int) -> bytes:
    """A path that leads to the inode of *fd*, and no further if that is a link."""
    return b"/proc/self/fd/%d" % fd


def make_stat(ino: int, found: os.stat_result, valid: int) -> Stat:
    """The `Stat` of *found*, shown with the number *ino*."""
    return Stat(
        ino,
        found.st_mode,
        found.st_size,
        found.st_blocks,
        found.st_nlink,
        found.st_uid,
        found.st_gid,
        device_number(found.st_rdev),
        found.st_mtime_ns,
        valid,
        found.st_atime_ns,
        found.st_ctime_ns,
    )


def device_number(device: int) -> int:
    """*device* in the kernel's encoding of 32 bits."""
    major, minor = os.major(device), os.minor(device)
    return (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)


def host_device(number: int) -> int:
    """The device that the kernel's encoding of 32 bits means."""
    return os.makedev((number >> 8) & 0xFFF, (number & 0xFF) | ((number >> 12) & 0xFFF00))


def read_link(fd: int) -> bytes:
    """Where the symbolic link of *fd* leads."""
    return os.readlink(b"", dir_fd=fd)


def open_again(fd: int, flags: int) -> int:
    """The inode of *fd*, opened with the O_* of *flags* as far as they are the host's business."""
    return os.open(by_descriptor(fd), flags & ~NOT_PASSED | os.O_CLOEXEC)


# ---------------------------------------------------------------- making names


def create(directory: int, name: bytes, mode: int, flags: int, caller: Caller) -> int:
    """Open *name*, made for *caller* when it is not there; never through a link."""
    wanted = flags & ~NOT_PASSED | os.O_CLOEXEC
    try:
        with ActingAs(caller.uid, caller.gid):
            return os.open(
                name, wanted | os.O_CREAT | os.O_EXCL, mode_bits.S_IMODE(mode), dir_fd=directory
            )
    except FileExistsError:
        if flags & os.O_EXCL:
            raise
    found = look(directory, name)  # somebody else's: as it is
    try:
        if not mode_bits.S_ISREG(os.fstat(found).st_mode):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))  # the kernel looks again
        return open_again(found, flags)
    finally:
        os.close(found)


def make_node(directory: int, name: bytes, mode: int, rdev: int, caller: Caller) -> None:
    """Make a regular or special file for *caller*; *mode* with type bits."""
    with ActingAs(caller.uid, caller.gid):
        os.mknod(name, mode, host_device(rdev), dir_fd=directory)


def make_directory(directory: int, name: bytes, mode: int, caller: Caller) -> None:
    """Make a directory for *caller*."""
    with ActingAs(caller.uid, caller.gid):
        os.mkdir(name, mode_bits.S_IMODE(mode), dir_fd=directory)


def make_symlink(directory: int, name: bytes, target: bytes, caller: Caller) -> None:
    """Make a symbolic link for *caller*."""
    with ActingAs(caller.uid, caller.gid):
        os.symlink(target, name, dir_fd=directory)


def make_link(fd: int, directory: int, name: bytes) -> None:
    """Give the inode of *fd* another name."""
    os.link(by_descriptor(fd), name, dst_dir_fd=directory, follow_symlinks=True)


def remove_file(directory: int, name: bytes) -> None:
    """Remove a name that is not a directory."""
    os.unlink(name, dir_fd=directory)


def remove_directory(directory: int, name: bytes) -> None:
    """Remove an empty directory."""
    os.rmdir(name, dir_fd=directory)


def rename(directory: int, name: bytes, new_directory: int, new_name: bytes, flags: int) -> None:
    """Move a name; *flags*: RENAME_* of renameat2(2)."""
    host_calls.rename(directory, name, new_directory, new_name, flags)


# ---------------------------------------------------------------- changing inodes


def drop_privileges(path: bytes, found: os.stat_result) -> None:
    """Take the set-user-id bit off, and the set-group-id bit where it means a program's."""
    mode = mode_bits.S_IMODE(found.st_mode)
    kept = mode & ~mode_bits.S_ISUID
    if mode & mode_bits.S_IXGRP:
        kept &= ~mode_bits.S_ISGID
    if kept != mode and mode_bits.S_ISREG(found.st_mode):
        os.chmod(path, kept)  # noqa: PTH101  # as all here, by bytes


def change_attributes(fd: int, open_fd: int | None, changes: Changes) -> None:
    """Make *changes* to the inode of *fd*; *open_fd*: the same inode opened for writing, if any."""
    path = by_descriptor(fd)
    if changes.kills_privileges:
        drop_privileges(path, os.fstat(fd))
    if changes.uid is not None or changes.gid is not None:
        uid = -1 if changes.uid is None else changes.uid
        os.chown(path, uid, -1 if changes.gid is None else changes.gid)
    if changes.mode is not None:
        os.chmod(path, changes.mode)  # noqa: PTH101
    if changes.size is not None:
        if changes.size >= 1 << 63:
            raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
        os.truncate(path if open_fd is None else open_fd, changes.size)
    if changes.atime_ns is not None or changes.mtime_ns is not None:
        host_calls.set_times(path, changes.atime_ns, changes.mtime_ns, NOW)


def get_xattr(fd: int, name: bytes) -> bytes:
    """The value of an extended attribute."""
    return os.getxattr(by_descriptor(fd), name)


def list_xattrs(fd: int) -> list[bytes]:
    """The names of all extended attributes."""
    return [os.fsencode(name) for name in os.listxattr(by_descriptor(fd))]


def set_xattr(fd: int, name: bytes, value: bytes | memoryview, flags: int) -> None:
    """Set an extended attribute; *flags*: XATTR_*."""
    os.setxattr(by_descriptor(fd), name, value, flags)


def remove_xattr(fd: int, name: bytes) -> None:
    """Remove an extended attribute."""
    os.removexattr(by_descriptor(fd), name)


def statistics(fd: int) -> Statistics:
    """What statfs tells of the host file system that *fd* is in."""
    found = os.fstatvfs(fd)
    return Statistics(
        found.f_blocks,
        found.f_bfree,
        found.f_bavail,
        found.f_files,
        found.f_ffree,
        found.f_bsize,
        found.f_frsize,
        found.f_namemax,
    )


# ---------------------------------------------------------------- open files


def write(fd: int, data: memoryview | bytes, offset: int, flags: int) -> int:
    """Write *data* at *offset*, or at the end where *flags* has O_APPEND; how much was written."""
    if flags & os.O_APPEND:
        return os.pwritev(fd, [data], offset, os.RWF_APPEND)
    return os.pwrite(fd, data, offset)


def sync(fd: int, *, data_only: bool) -> None:
    """Bring what was written to the disk."""
    if data_only:
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_inode(fd: int, *, data_only: bool) -> None:
    """As `sync`, of the inode of a descriptor that is not open."""
    opened = open_again(fd, os.O_RDONLY)
    try:
        sync(opened, data_only=data_only)
    finally:
        os.close(opened)


def allocate(fd: int, mode: int, offset: int, length: int) -> None:
    """See fallocate(2)."""
    host_calls.allocate(fd, mode, offset, length)
