"""Whiteouts, and an upper layer laid over a lower one (rafs-format: layers)."""

import stat
from enum import StrEnum

from nydusd.rafs.write_tree import TreeNode

OCI_PREFIX = b".wh."
OCI_OPAQUE = b".wh..wh..opq"
OVERLAYFS_OPAQUE = b"trusted.overlay.opaque"


class WhiteoutSpec(StrEnum):
    """How a layer says that something of the layers below is gone."""

    OCI = "oci"
    OVERLAYFS = "overlayfs"
    NONE = "none"


def is_text(name: bytes) -> bool:
    """Whether *name* is UTF-8: an OCI whiteout with another name is an ordinary file."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def is_whiteout(node: TreeNode, spec: WhiteoutSpec) -> bool:
    """Whether *node* is a mark rather than a file: it never shows in an image."""
    if spec == WhiteoutSpec.OCI:
        return node.name.startswith(OCI_PREFIX) and is_text(node.name)
    if spec == WhiteoutSpec.OVERLAYFS:
        return stat.S_ISCHR(node.mode) and node.rdev == 0
    return False


def take_opaque_mark(node: TreeNode, spec: WhiteoutSpec) -> None:
    """Turn the overlayfs attribute of an opaque directory into `is_opaque`."""
    if spec != WhiteoutSpec.OVERLAYFS or node.children is None or not node.xattrs:
        return
    if (OVERLAYFS_OPAQUE, b"y") in node.xattrs:
        node.is_opaque = True
        node.xattrs = [pair for pair in node.xattrs if pair[0] != OVERLAYFS_OPAQUE]


def hidden_name(node: TreeNode, spec: WhiteoutSpec) -> bytes:
    """The name that whiteout *node* removes from its directory."""
    return node.name.removeprefix(OCI_PREFIX) if spec == WhiteoutSpec.OCI else node.name


def merge_layers(
    lower: TreeNode, upper: TreeNode, spec: WhiteoutSpec, *, root_from_upper: bool = True
) -> TreeNode:
    """The tree that shows *upper* over *lower*; both trees are used up.

    All whiteouts of a directory count before its other entries are merged. A directory over a
    directory keeps the lower children and takes the upper attributes, the root only with
    *root_from_upper*; anything else replaces.
    """
    waiting = [(lower, upper)]
    while waiting:
        below, above = waiting.pop()
        assert below.children is not None
        assert above.children is not None
        marks = [node for node in above.children if is_whiteout(node, spec)]
        files = [node for node in above.children if not is_whiteout(node, spec)]
        opaque = above.is_opaque or (
            spec == WhiteoutSpec.OCI and any(node.name == OCI_OPAQUE for node in marks)
        )
        merged = {} if opaque else {node.name: node for node in below.children}
        for mark in marks:
            merged.pop(hidden_name(mark, spec), None)
        for node in files:
            old = merged.get(node.name)
            merged[node.name] = node
            if node.children is not None:
                if old is None or old.children is None:
                    old = TreeNode(node.name, node.mode)
                waiting.append((old, node))
        above.children = list(merged.values())
    if not root_from_upper:
        lower.children = upper.children
        return lower
    return upper
