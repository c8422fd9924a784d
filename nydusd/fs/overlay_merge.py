"""The merged tree of an overlay: which inode a name leads to, and what a directory lists.

A name is looked for in the upper directory first: a whiteout there hides the lower one, a directory
is merged with the lower directory of its name unless it is opaque, anything else stands alone. The
rules are those of the kernel's overlayfs. All but `groups` is called with `lock` held; nothing here
changes a directory.
"""

import os
import stat as mode_bits
import threading

from nydusd.base.record import NamedTuple
from nydusd.fs.host_directory import by_descriptor, make_stat, open_root
from nydusd.fs.lower import LowerTree
from nydusd.fs.overlay_nodes import Node, NodeTable
from nydusd.fs.overlay_upper import Found, UpperLayer, is_whiteout
from nydusd.fs.stat import Stat


class Listed(NamedTuple):
    """One name of a merged directory; *kind*: S_IFMT bits, 0 = unknown."""

    name: bytes
    number: int
    kind: int


class MergedTree:
    """*upper* over *lower*."""

    def __init__(self, upper: UpperLayer, lower: LowerTree) -> None:
        self.upper = upper
        self.lower = lower
        # Guards the nodes and every name of the upper directory; never held while data is copied.
        self.lock = threading.RLock()
        root = Node(lower.root_ino, mode_bits.S_IFDIR, None, b"")
        root.upper = open_root(by_descriptor(upper.root))
        root.upper_ino = os.fstat(root.upper).st_ino
        root.lower = 0 if upper.is_opaque(root.upper) else lower.root_ino
        self.nodes = NodeTable(root)
        self._groups: dict[int, list[list[bytes]]] | None = None  # guarded by self.lock

    # ---------------------------------------------------------------- names

    def find(self, parent: Node, name: bytes) -> Node | None:
        """The node that *name* leads to, None when it is not there or hidden; `OSError`."""
        if parent.upper >= 0:
            found = self.upper.look(parent.upper, name)
            if found is not None:
                return self._from_upper(parent, name, found)
        lower = self.lower_child(parent, name)
        return None if lower is None else self._from_lower(parent, name, lower)

    def lower_child(self, parent: Node, name: bytes) -> Stat | None:
        """What *name* is below, whether or not the upper directory hides it.

        A whiteout of the image itself means there too that there is nothing.
        """
        if not parent.lower:
            return None
        found = self.lower.find(parent.lower, name)
        return None if found is None or is_whiteout(found.mode, found.rdev) else found

    def _from_upper(self, parent: Node, name: bytes, found: Found) -> Node | None:
        """The node of what the upper directory has; takes over its descriptor."""
        keeps = False
        try:
            status = found.status
            if is_whiteout(status.st_mode, status.st_rdev):
                return None
            known = self.nodes.of_upper(status.st_ino)
            if known is not None:
                known.gone = False
                self.nodes.move(known, parent, name)
                return known
            kind = mode_bits.S_IFMT(status.st_mode)
            self.upper.refuse_foreign(found.fd, kind)
            lower = self._merged_with(parent, name, found.fd) if kind == mode_bits.S_IFDIR else 0
            node = self.nodes.of_lower(lower) if lower else None
            if node is None or node.upper >= 0:
                if node is not None:  # its directory was replaced without us
                    self.nodes.bury(node)
                node = self.nodes.add(kind, parent, name, lower=lower, upper_ino=status.st_ino)
            self.nodes.put_up(node, found.fd, status.st_ino)
            keeps = True
            return node
        finally:
            if not keeps:
                os.close(found.fd)

    def _merged_with(self, parent: Node, name: bytes, fd: int) -> int:
        """The lower directory that an upper one shows as well, 0 = none."""
        lower = self.lower_child(parent, name)
        if lower is None or not mode_bits.S_ISDIR(lower.mode) or self.upper.is_opaque(fd):
            return 0
        return lower.ino

    def _from_lower(self, parent: Node, name: bytes, found: Stat) -> Node:
        """The node of what only the lower tree has."""
        known = self.nodes.of_lower(found.ino)
        if known is not None and known.is_directory and known.upper >= 0:
            self.nodes.bury(known)  # its upper directory was removed without us
            known = None
        if known is None:
            kind = mode_bits.S_IFMT(found.mode)
            return self.nodes.add(kind, parent, name, lower=found.ino, upper_ino=0)
        if known.upper < 0:
            self.nodes.move(known, parent, name)
        return known

    def entries(self, directory: Node) -> list[Listed]:
        """Every visible name of *directory*, each once, without "." and ".."; `OSError`."""
        below = {entry.name: entry for entry in self._lower_entries(directory)}
        listed = []
        for name, ino, kind in self.upper.names(directory.upper) if directory.upper >= 0 else ():
            entry = below.pop(name, None)
            if kind == 0:
                continue
            lower = 0
            if entry is not None and kind == mode_bits.S_IFDIR == entry.kind:
                lower = self._lower_shown(directory, name, entry.number)
            listed.append(Listed(name, self.nodes.shown_number(lower, ino), kind))
        for name, number, kind in below.values():
            listed.append(Listed(name, self.nodes.shown_number(number, 0), kind))
        return listed

    def _lower_shown(self, directory: Node, name: bytes, lower: int) -> int:
        """*lower* if the upper directory *name* is merged with it, else 0."""
        found = self.upper.look(directory.upper, name)
        if found is None:
            return 0
        try:
            return 0 if self.upper.is_opaque(found.fd) else lower
        finally:
            os.close(found.fd)

    def _lower_entries(self, directory: Node) -> list[Listed]:
        if not directory.lower:
            return []
        entries = []
        for name, ino, _, kind in self.lower.entries(directory.lower):
            if name in (b".", b".."):
                continue
            bits = kind << 12
            if bits in (0, mode_bits.S_IFCHR):
                status = self.lower.stat(ino)
                bits = mode_bits.S_IFMT(status.mode)
                if is_whiteout(status.mode, status.rdev):
                    continue
            entries.append(Listed(name, ino, bits))
        return entries

    # ---------------------------------------------------------------- attributes

    def status(self, node: Node) -> Stat:
        """What stat shows of *node*, to be asked for again each time; `OSError`.

        A merged directory has one link, as the kernel's overlayfs says it: how many directories are
        in it nobody has counted.
        """
        if node.upper < 0:
            below = self.lower.stat(node.lower)
            return below._replace(
                ino=node.number,
                valid=0,
                atime_ns=below.mtime_ns,
                ctime_ns=below.mtime_ns,
                nlink=0 if node.gone and below.nlink == 1 else below.nlink,
            )
        status = os.fstat(node.upper)
        is_merged = node.is_directory and node.lower != 0
        shown = make_stat(node.number, status, valid=0)
        return shown._replace(nlink=1) if is_merged and shown.nlink else shown

    # ---------------------------------------------------------------- hard links of the image

    def group(self, lower: int) -> list[list[bytes]]:
        """Every path, as names, that the image has for the inode *lower* of several names.

        The first call walks the whole image: files with several names are rare, and those that are
        changed rarer.
        """
        if self._groups is None:
            self._groups = self._find_groups()
        return self._groups.get(lower, [])

    def _find_groups(self) -> dict[int, list[list[bytes]]]:
        groups: dict[int, list[list[bytes]]] = {}
        pending: list[tuple[int, list[bytes]]] = [(self.lower.root_ino, [])]
        seen = {self.lower.root_ino}
        while pending:
            directory, path = pending.pop()
            for name, ino, _, _ in self.lower.entries(directory):
                if name in (b".", b".."):
                    continue
                status = self.lower.stat(ino)
                if not mode_bits.S_ISDIR(status.mode):
                    if status.nlink > 1:
                        groups.setdefault(ino, []).append([*path, name])
                elif ino not in seen:
                    seen.add(ino)
                    pending.append((ino, [*path, name]))
        return groups

    def close(self) -> None:
        """Let go of every node; nobody asks any more."""
        with self.lock:
            self.nodes.close()
