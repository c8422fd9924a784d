"""The tree that the writers turn into a bootstrap, and the numbers its nodes get.

A `TreeNode` is one name: hard links are several nodes. It knows nothing of where it came from but
a path to read its data from. Not for several threads at a time.
"""

cimport cython
from posix.stat cimport S_IFDIR, S_IFMT, S_IFREG

cdef enum:
    INODES_MAX = 0x1fffffff     # v5 stores inode offsets in 29 bits of 8 bytes; far above both


@cython.final
@cython.trashcan(True)      # a tree of a hostile parent image may be deeper than the C stack
cdef class TreeNode:
    """One name of the image, with the attributes that the image shows."""

    def __cinit__(self, bytes name, uint32_t mode, bytes path=b""):
        self.name = name
        self.path = path
        self.mode = mode
        self.target = b""
        self.xattrs = []
        self.children = [] if (mode & S_IFMT) == S_IFDIR else None
        self.digest = b""
        self.nlink = 1

    @property
    def is_directory(self):
        return self.mode & S_IFMT == S_IFDIR

    @property
    def is_regular(self):
        return self.mode & S_IFMT == S_IFREG

    def __repr__(self):
        return f"TreeNode({self.name!r}, {self.mode:#o})"


def name_of(TreeNode node):
    """Sort key of children: plain byte order."""
    return node.name


def number_nodes(TreeNode root, bint link_specials):
    """Every node in index order; sets index, ino, parent, nlink and child_index.

    Children become sorted by name. Names of one inode (equal `identity`) share the ino of the
    first; with *link_specials* not only regular files but symlinks, devices, FIFOs and sockets
    too. Directories of a loop would not end: a tree has none.
    """
    cdef list nodes = [root]
    cdef list waiting = [root]
    cdef list directories
    cdef list names
    cdef dict links = {}
    cdef TreeNode directory, child, first, other
    cdef uint32_t kind
    root.index = root.ino = 1
    root.parent = 0
    while waiting:
        directory = waiting.pop()
        directory.children.sort(key=name_of)
        directory.child_index = <uint32_t>(len(nodes) + 1)
        directories = []
        for child in directory.children:
            child.index = child.ino = <uint32_t>(len(nodes) + 1)
            child.parent = directory.ino
            child.first_name = None
            child.nlink = 1
            nodes.append(child)
            kind = child.mode & S_IFMT
            if kind == S_IFDIR:
                directories.append(child)
            elif child.identity is not None and (link_specials or kind == S_IFREG):
                names = links.setdefault(child.identity, [])
                if names:
                    first = names[0]
                    child.first_name = first
                    child.ino = first.ino
                    child.nlink = <uint32_t>(len(names) + 1)
                    for other in names:
                        other.nlink = child.nlink
                names.append(child)
        directory.nlink = <uint32_t>(2 + len(directories))
        directories.reverse()
        waiting.extend(directories)
        if len(nodes) > INODES_MAX:
            raise OverflowError(f"more than {INODES_MAX} files in one image")
    return nodes
