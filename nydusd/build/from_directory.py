"""A directory of the host as a tree to be packed.

The walk is a loop with its own stack: how deep a tree goes is the file system's limit, not ours.
"""

import os
from collections.abc import Callable

from nydusd.base.errors import BuildError
from nydusd.build.node import ROOT_NAME, cannot_read, node_from_path
from nydusd.rafs.write_tree import TreeNode


def tree_from_directory(
    source: bytes, explicit_uid_gid: bool, is_left_out: Callable[[TreeNode], bool]
) -> TreeNode:
    """The root of all that is below *source*, children sorted by name.

    *is_left_out* is asked of each node but the root; what is left out is not looked into. The
    root's mtime is 0: it is often the moment a tool made the directory.
    """
    root = node_from_path(source, ROOT_NAME, explicit_uid_gid)
    root.mtime = root.mtime_nsec = 0
    if root.children is None:
        raise BuildError(f"{os.fsdecode(source)}: not a directory")
    waiting = [root]
    while waiting:
        directory = waiting.pop()
        prefix = directory.path + b"/" if not directory.path.endswith(b"/") else directory.path
        try:
            with os.scandir(directory.path) as entries:
                names = sorted(entry.name for entry in entries)
        except OSError as exc:
            raise BuildError(cannot_read(directory.path, exc)) from exc
        children = []
        for name in names:
            node = node_from_path(prefix + name, name, explicit_uid_gid)
            if is_left_out(node):
                continue
            children.append(node)
            if node.children is not None:
                waiting.append(node)
        directory.children = children
    return root
