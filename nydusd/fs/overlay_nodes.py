"""The inodes of an overlay that the kernel knows: their numbers, and what is behind each.

A `Node` is one inode of the merged tree. It has the number of the lower inode where one is behind
it, and keeps it when it is copied up; what is only in the upper directory has a number made of the
host's. So a number stays the same while its inode is known, and that of whatever is still in the
image for good. Nothing here looks at a disk. Every method is called with the tree's lock held.
"""

import errno
import os
import stat as mode_bits
import threading

from nydusd.fs.host_directory import by_descriptor

UPPER_BIT = 1 << 47  # of numbers that no lower inode has: the mount table takes 48 bits
NUMBER_MASK = UPPER_BIT - 1


class Node:
    """One inode of the merged tree.

    *upper*: an O_PATH descriptor of its host file, owned, -1 = it is not in the upper directory.
    *lower*: the lower inode behind it, 0 = none: of a directory whose entries are merged with the
    upper ones, of a file whose data and attributes are still there as long as it has no *upper*.
    *kind*: S_IFMT bits. *parent* and *name*: one place where it is visible; of a node that is only
    in the lower tree also its place there, for such a node is never moved.
    """

    __slots__ = (
        "children",
        "gone",
        "handles",
        "kind",
        "lock",
        "lookups",
        "lower",
        "name",
        "number",
        "parent",
        "upper",
        "upper_ino",
    )

    def __init__(self, number: int, kind: int, parent: "Node | None", name: bytes) -> None:
        self.number = number
        self.kind = kind
        self.parent = parent
        self.name = name
        self.upper = -1
        self.upper_ino = 0
        self.lower = 0
        self.lookups = 0  # times that the kernel was told of it
        self.children = 0  # nodes whose parent it is
        self.gone = False  # no name leads to it any more
        self.handles: set[int] = set()  # open handles that read the lower file
        self.lock = threading.Lock()  # of the one copy-up; taken before the tree's lock

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return self.kind == mode_bits.S_IFDIR

    @property
    def is_regular(self) -> bool:
        """Whether it has data."""
        return self.kind == mode_bits.S_IFREG

    @property
    def upper_path(self) -> bytes:
        """A path of its host file that leads nowhere else, whatever happens to its names."""
        return by_descriptor(self.upper)


class NodeTable:
    """Every known node, by its number and by what is behind it."""

    def __init__(self, root: Node) -> None:
        self.root = root
        self._nodes = {root.number: root}
        self._by_upper = {root.upper_ino: root}
        self._by_lower = {root.lower: root} if root.lower else {}
        self._last_made_up = NUMBER_MASK

    def __len__(self) -> int:
        """How many nodes are known."""
        return len(self._nodes)

    def node(self, number: int) -> Node:
        """The node with *number*; `OSError(ESTALE)` when it is not known."""
        try:
            return self._nodes[number]
        except KeyError:
            raise OSError(errno.ESTALE, f"inode {number} is not known") from None

    def known(self, number: int) -> Node | None:
        """The node with *number*, None when it is not known."""
        return self._nodes.get(number)

    def of_upper(self, upper_ino: int) -> Node | None:
        """The node of a host inode."""
        return self._by_upper.get(upper_ino)

    def of_lower(self, lower: int) -> Node | None:
        """The node of a lower inode."""
        return self._by_lower.get(lower)

    def shown_number(self, lower: int, upper_ino: int) -> int:
        """The number that a listing shows for what a look at it would find."""
        known = self._by_upper.get(upper_ino) if upper_ino else self._by_lower.get(lower)
        if known is not None:
            return known.number
        return lower or UPPER_BIT | (upper_ino & NUMBER_MASK)

    def add(self, kind: int, parent: Node, name: bytes, *, lower: int, upper_ino: int) -> Node:
        """A new node, told to nobody yet."""
        number = lower or UPPER_BIT | (upper_ino & NUMBER_MASK)
        if number in self._nodes or lower > NUMBER_MASK:
            number = self._make_up()
        node = Node(number, kind, parent, name)
        node.lower = lower
        parent.children += 1
        self._nodes[number] = node
        if lower:
            self._by_lower.setdefault(lower, node)
        return node

    def _make_up(self) -> int:
        """A number that is nobody's, counted down from the highest."""
        while UPPER_BIT | self._last_made_up in self._nodes:
            self._last_made_up -= 1
        number = UPPER_BIT | self._last_made_up
        self._last_made_up -= 1
        return number

    def put_up(self, node: Node, upper: int, upper_ino: int) -> None:
        """Let *node* have the host file behind the descriptor *upper*, which it owns from now."""
        node.upper, node.upper_ino = upper, upper_ino
        self._by_upper[upper_ino] = node

    def move(self, node: Node, parent: Node, name: bytes) -> None:
        """Note another place of *node*."""
        if node.parent is not parent:
            old = node.parent
            parent.children += 1
            node.parent = parent
            if old is not None:
                old.children -= 1
                self._drop_unused(old)
        node.name = name

    def bury(self, node: Node) -> None:
        """Note that no name leads to *node* any more: what comes in its place is another."""
        node.gone = True
        if self._by_lower.get(node.lower) is node:
            del self._by_lower[node.lower]

    def told(self, node: Node) -> None:
        """Count that the kernel is told of *node*."""
        node.lookups += 1

    def forget(self, number: int, count: int) -> None:
        """Take back *count* of the times that the kernel was told of a node."""
        node = self._nodes.get(number)
        if node is not None:
            node.lookups = max(0, node.lookups - count)
            self._drop_unused(node)

    def _drop_unused(self, node: Node) -> None:
        """Let go of *node*, and of its parents, while nobody holds them."""
        current: Node | None = node
        while current is not None and self._is_unused(current):
            del self._nodes[current.number]
            if self._by_lower.get(current.lower) is current:
                del self._by_lower[current.lower]
            if self._by_upper.get(current.upper_ino) is current:
                del self._by_upper[current.upper_ino]
            if current.upper >= 0:
                os.close(current.upper)
                current.upper = -1
            parent, current.parent = current.parent, None
            if parent is not None:
                parent.children -= 1
            current = parent

    def _is_unused(self, node: Node) -> bool:
        return (
            node is not self.root
            and node.lookups <= 0
            and node.children <= 0
            and not node.handles
            and self._nodes.get(node.number) is node
        )

    def drop(self, node: Node) -> None:
        """Let go of *node* if the kernel was never told of it."""
        self._drop_unused(node)

    def close(self) -> None:
        """Close every descriptor."""
        for node in self._nodes.values():
            if node.upper >= 0:
                os.close(node.upper)
                node.upper = -1
        self._nodes.clear()
        self._by_lower.clear()
        self._by_upper.clear()
