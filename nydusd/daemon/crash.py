"""Whether a daemon died here and left its mount and its control socket behind.

A successor is started with the command line of the one that died: it has to find out by itself
that it is one. What is asked are the mount table and the socket's file, never the file system: a
mount that nobody serves does not answer.
"""

import os
import stat
from pathlib import Path
from typing import Final

from nydusd.fuse.mount import device_at

MOST_LINKS: Final = 40


def is_socket(path: str) -> bool:
    """Whether the file at *path* is a socket, served or not."""
    try:
        return stat.S_ISSOCK(Path(path).lstat().st_mode)
    except OSError:
        return False


def mounted_at(path: str) -> str | None:
    """*path* without symbolic links if a FUSE file system is mounted there, else None."""
    for _ in range(MOST_LINKS):
        folder, name = os.path.split(os.path.abspath(path))  # noqa: PTH100  # drops `..` too
        path = os.path.join(os.path.realpath(folder), name)  # noqa: PTH118
        if device_at(Path(path)) is not None:
            return path
        try:
            path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
        except OSError:
            return None
    return None


def is_left_behind(mountpoint: str, apisock: str) -> bool:
    """Whether *mountpoint* is still mounted and there is a socket file at *apisock* as well.

    That nobody listens on the socket is for the caller to know.
    """
    return is_socket(apisock) and mounted_at(mountpoint) is not None
