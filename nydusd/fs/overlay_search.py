"""Finding inodes by their number, for the kernel that has them from another process.

Numbers are made of what is behind an inode, so that they can be found again: the lower inode's for
what is in the image, the host's for what is in the upper directory. Both trees are walked once, at
the first number that is not known. What has no name, or was copied up while its number was in use,
is not found: nobody could tell it from another file that has taken its place.
"""

import os

from nydusd.fs.overlay_merge import MergedTree
from nydusd.fs.overlay_nodes import Node

MOST_NAMES = 1 << 24  # of a walk: an image may be hostile


class NodeSearch:
    """Searches *tree*; any thread."""

    def __init__(self, tree: MergedTree) -> None:
        self._tree = tree
        # (number of the directory, name) by number; guarded by the tree's lock
        self._places: dict[int, tuple[int, bytes]] | None = None

    def find(self, number: int) -> Node | None:
        """The node with *number*, None when nothing visible has it."""
        with self._tree.lock:
            if self._places is None:
                self._places = self._walk()
            path: list[bytes] = []
            current = number
            while current != self._tree.nodes.root.number:
                place = self._places.get(current)
                if place is None or len(path) > os.pathconf("/", "PC_PATH_MAX"):
                    return None
                current, name = place
                path.append(name)
            node = self._tree.nodes.root
            for name in reversed(path):
                child = self._tree.find(node, name)
                if child is None:
                    return None
                node = child
            if node.number != number:
                self._tree.nodes.drop(node)
                return None
            self._tree.nodes.told(node)
            return node

    def _walk(self) -> dict[int, tuple[int, bytes]]:
        """The place of everything that is visible."""
        places: dict[int, tuple[int, bytes]] = {}
        pending = [self._tree.nodes.root]
        while pending and len(places) < MOST_NAMES:
            directory = pending.pop()
            for name, number, _ in self._tree.entries(directory):
                if number in places:
                    continue
                places[number] = (directory.number, name)
                node = self._tree.find(directory, name)
                if node is not None and node.is_directory:
                    pending.append(node)
                elif node is not None:
                    self._tree.nodes.drop(node)
            self._tree.nodes.drop(directory)
        return places
