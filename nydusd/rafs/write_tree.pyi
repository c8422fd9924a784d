from collections.abc import Hashable
from typing import Self, final

@final
class TreeNode:
    name: bytes
    path: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime: int
    mtime_nsec: int
    target: bytes
    xattrs: list[tuple[bytes, bytes]]
    children: list[TreeNode] | None
    identity: Hashable
    is_lower: bool
    is_opaque: bool
    index: int
    ino: int
    parent: int
    nlink: int
    child_index: int
    first_name: TreeNode | None
    first_reference: int
    chunk_count: int
    digest: bytes
    def __new__(cls, name: bytes, mode: int, path: bytes = b"") -> Self: ...
    @property
    def is_directory(self) -> bool: ...
    @property
    def is_regular(self) -> bool: ...

def name_of(node: TreeNode) -> bytes: ...
def number_nodes(root: TreeNode, link_specials: bool) -> list[TreeNode]: ...
