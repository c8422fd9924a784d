"""One file system object, looked at: from a path to a `TreeNode`.

What is kept of it and what is not: rafs-format, "content of the tree".
"""

import errno
import os
import stat
from typing import Final

from nydusd.base.errors import BuildError
from nydusd.build.look import look
from nydusd.rafs.write_tree import TreeNode

ROOT_NAME: Final = b"/"
XATTR_NAME_MAX: Final = 255  # bytes
XATTR_VALUE_MAX: Final = 0x10000  # bytes
# Attributes that an image can hold; the first three are followed by a name, the others are one.
XATTR_PREFIXES: Final = (b"user.", b"trusted.", b"security.")
XATTR_NAMES: Final = (b"system.posix_acl_access", b"system.posix_acl_default")


def shown(path: bytes) -> str:
    """*path* as messages show it."""
    return path.decode(errors="backslashreplace")


def cannot_read(path: bytes, exc: OSError) -> str:
    """What to tell of an error that met *path* while it was looked at or read."""
    if exc.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return f"{shown(path)}: vanished while it was packed ({exc.strerror})"
    return f"{shown(path)}: {exc.strerror}"


def is_storable(name: bytes) -> bool:
    """Whether an image can hold an attribute of this full *name*."""
    if len(name) > XATTR_NAME_MAX:
        return False
    return name in XATTR_NAMES or any(
        name.startswith(prefix) and len(name) > len(prefix) for prefix in XATTR_PREFIXES
    )


def xattrs_of(path: bytes, names: list[str]) -> list[tuple[bytes, bytes]]:
    """Full names and values of the attributes *names* of *path*, sorted by name."""
    found = []
    for name in sorted(os.fsencode(name) for name in names):
        value = os.getxattr(path, name, follow_symlinks=False)
        if not is_storable(name):
            raise BuildError(
                f"{shown(path)}: attribute {shown(name)} cannot be stored: names begin with "
                "user., trusted. or security., or are those of POSIX ACLs; at most 255 bytes"
            )
        if len(value) > XATTR_VALUE_MAX:
            raise BuildError(
                f"{shown(path)}: the value of attribute {shown(name)} has {len(value)} bytes, "
                f"at most {XATTR_VALUE_MAX} can be stored"
            )
        found.append((name, value))
    return found


def node_from_path(path: bytes, name: bytes, explicit_uid_gid: bool) -> TreeNode:
    """What is at *path*, not following a symbolic link, under *name*; directories without children.

    `BuildError` when it has gone, cannot be read, or has an attribute that no image can hold.
    """
    try:
        node, has_xattrs = look(path, name, explicit_uid_gid)
        if has_xattrs:
            names = os.listxattr(path, follow_symlinks=False)
            node.xattrs = xattrs_of(path, names)
        if stat.S_ISLNK(node.mode):
            node.target = os.readlink(path)  # noqa: PTH115 - any bytes
    except OSError as exc:
        raise BuildError(cannot_read(path, exc)) from exc
    return node
