"""Mounting /dev/fuse, finding the mount again, and taking it away.

Done with mount(2); where that is not permitted, through fusermount. Clients find the mount by type
`fuse` and source `rafs`, so there is no subtype. What only the helper needs is imported with it:
the daemon's start waits for this module.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.base.errors import MountError
from nydusd.fuse import syscalls

if TYPE_CHECKING:
    import socket

SOURCE = "rafs"
MAX_READ_BYTES = (1 << 20) + 4096
# What resolves to something else in each process; libfuse would mount over a device node.
FOREIGN_PATHS = ("/dev/fd", "/proc")


def check_mountpoint(mountpoint: str | Path) -> Path:
    """*mountpoint* as an absolute path without links; `MountError` when it cannot be one."""
    absolute = Path(mountpoint).absolute()
    try:
        path = absolute.resolve(strict=True)
        is_directory = path.is_dir()
    except OSError as exc:
        hint = "; unmount what is there first" if exc.errno == errno.ENOTCONN else ""
        raise MountError(f"mountpoint {mountpoint}: {exc.strerror}{hint}") from exc
    for candidate in (absolute, path):
        if any(candidate.is_relative_to(foreign) for foreign in FOREIGN_PATHS):
            raise MountError(f"mountpoint {mountpoint}: not a place for a file system")
    if not is_directory:
        raise MountError(f"mountpoint {mountpoint}: not a directory")
    return path


def mount_fuse(mountpoint: Path, *, writable: bool) -> int:
    """Mount at *mountpoint*: the open /dev/fuse descriptor, close-on-exec, owned by the caller."""
    try:
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        hint = "; is the fuse module loaded?" if exc.errno in (errno.ENOENT, errno.ENODEV) else ""
        raise MountError(f"/dev/fuse: {exc.strerror}{hint}") from exc
    flags = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOATIME
    data = (
        f"default_permissions,fd={fd},rootmode=40000,user_id={os.geteuid()},"
        f"group_id={os.getegid()},max_read={MAX_READ_BYTES},allow_other"
    )
    try:
        syscalls.mount(
            SOURCE, mountpoint, "fuse", flags | (0 if writable else syscalls.MS_RDONLY), data
        )
    except OSError as exc:
        os.close(fd)
        if exc.errno == errno.EPERM:
            return mount_through_fusermount(mountpoint, writable=writable)
        raise MountError(f"mount at {mountpoint}: {os.strerror(exc.errno or 0)}") from exc
    return fd


def fusermount() -> str:
    """The fusermount program; `MountError` when there is none."""
    import shutil

    program = shutil.which("fusermount3") or shutil.which("fusermount")
    if program is None:
        raise MountError("mount(2) is not permitted and there is no fusermount3 to ask")
    return program


def mount_through_fusermount(mountpoint: Path, *, writable: bool) -> int:
    """As `mount_fuse`, done by the set-uid helper, which hands the descriptor back."""
    import socket
    import subprocess

    options = (
        f"{'rw' if writable else 'ro'},nosuid,nodev,noatime,default_permissions,allow_other,"
        f"max_read={MAX_READ_BYTES},fsname={SOURCE}"
    )
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        done = subprocess.run(
            [fusermount(), "-o", options, "--", str(mountpoint)],
            env={**os.environ, "_FUSE_COMMFD": str(theirs.fileno())},
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise MountError(f"fusermount at {mountpoint}: {done.stderr.strip()}")
        return receive_descriptor(ours)


def receive_descriptor(sock: socket.socket) -> int:
    """The one descriptor that waits on *sock*, close-on-exec."""
    import array
    import socket

    room = array.array("i")
    _, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(room.itemsize))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            room.frombytes(data[: room.itemsize])
    if not room:
        raise MountError("fusermount handed no descriptor back")
    os.set_inheritable(room[0], False)
    return room[0]


def unescape(field: str) -> str:
    """A field of mountinfo with its octal escapes resolved."""
    if "\\" not in field:
        return field
    import re

    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def device_at(mountpoint: Path) -> int | None:
    """Minor device number of the topmost FUSE mount at *mountpoint*: its connection id, or None.

    Asks the mount table, not the file system.
    """
    device = None
    with Path("/proc/self/mountinfo").open(encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields = line.split(" ")
            if unescape(fields[4]) == str(mountpoint):
                kind = fields[fields.index("-", 6) + 1]
                minor = int(fields[2].partition(":")[2])
                device = minor if kind == "fuse" or kind.startswith("fuse.") else None
    return device


def unmount(mountpoint: Path, device: int) -> bool:
    """Detach the mount of connection *device* from *mountpoint*; whether it was there.

    What somebody else has mounted there since is left alone.
    """
    return device_at(mountpoint) == device and detach(mountpoint)


def detach(mountpoint: Path) -> bool:
    """Detach what is mounted at *mountpoint*, whatever it is; whether there was anything."""
    try:
        syscalls.umount(mountpoint, syscalls.MNT_DETACH)
    except OSError as exc:
        if exc.errno == errno.EINVAL:  # gone meanwhile
            return False
        if exc.errno != errno.EPERM:
            raise
        unmount_through_fusermount(mountpoint)
    return True


def unmount_through_fusermount(mountpoint: Path) -> None:
    """As `detach`, done by the set-uid helper."""
    import subprocess

    done = subprocess.run(
        [fusermount(), "-u", "-z", "--", str(mountpoint)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MountError(f"fusermount -u {mountpoint}: {done.stderr.strip()}")
