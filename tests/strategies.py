"""What property tests draw: file system trees, as values and on disk."""

import os
import stat
from dataclasses import dataclass, field, replace
from pathlib import Path

from hypothesis import strategies as st

SECOND_NS = 1_000_000_000
# Names that sort before, between and behind "." and "..", and ordinary ones.
names = st.one_of(
    st.sampled_from([b"!", b"-x", b".!", b"..!", b"...", b"a", b"a.b", b"~", b"\xff", b"x" * 255]),
    st.binary(min_size=1, max_size=40).filter(lambda name: not set(name) & {0, 0x2F}),
).filter(lambda name: name not in (b".", b"..") and not name.startswith(b".wh."))
# Equal pieces, so that chunks are found again.
contents = st.one_of(
    st.binary(max_size=100),
    st.builds(
        lambda piece, count: piece * count,
        st.sampled_from([b"0123456789abcdef", b"\0"]),
        st.integers(0, 1200),
    ),
)


@dataclass
class Tree:
    """One object of a file system; a directory has *children*."""

    mode: int
    mtime_ns: int = 0
    content: bytes = field(default=b"", repr=False)  # of a file; target of a symlink
    children: dict[bytes, "Tree"] = field(default_factory=dict, repr=False)
    xattrs: dict[str, bytes] = field(default_factory=dict, repr=False)
    rdev: int = 0  # of a device
    holes: list[tuple[int, bytes]] = field(default_factory=list)  # gaps, and what follows each
    links: list[tuple[int, bytes]] = field(default_factory=list)  # of the root, see `add_links`


times = st.one_of(st.just(0), st.integers(0, 2**33 * SECOND_NS))
permissions = st.integers(0, 0o7777).map(lambda mode: mode | stat.S_IRUSR)
files = st.builds(
    lambda mode, ns, data: Tree(stat.S_IFREG | mode, ns, data), permissions, times, contents
)
symlinks = st.builds(
    lambda ns, data: Tree(stat.S_IFLNK | 0o777, ns, data),
    times,
    st.binary(min_size=1, max_size=1023).map(lambda data: data.replace(b"\0", b"/")),
)
fifos = st.builds(lambda mode, ns: Tree(stat.S_IFIFO | mode, ns), permissions, times)


def directories(things: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.builds(
        lambda mode, ns, children: Tree(stat.S_IFDIR | mode | 0o700, ns, children=children),
        permissions,
        times,
        st.dictionaries(names, things, max_size=12),
    )


def trees() -> st.SearchStrategy[Tree]:
    """Directories of files, symlinks, FIFOs and further directories."""
    leaves = st.one_of(files, symlinks, fifos)
    return directories(st.recursive(leaves, directories, max_leaves=40))


# Trees with all that an image can hold; they need root, devices among them.

odd_times = st.one_of(
    times,
    st.sampled_from([1, 999_999_999, SECOND_NS, 2**31 * SECOND_NS - 1, 2**33 * SECOND_NS + 7]),
)
user_xattrs = st.dictionaries(
    st.one_of(
        st.sampled_from(["user.a", "user." + "k" * 250, "trusted.x", "security.y"]),
        st.text("abc.", min_size=1, max_size=20).map(lambda name: f"user.{name}"),
    ),
    st.one_of(st.just(b""), st.binary(max_size=60), st.just(b"v" * 600)),
    max_size=4,
)
other_xattrs = st.dictionaries(
    st.sampled_from(["trusted.x", "trusted.y", "security.y"]), st.binary(max_size=60), max_size=2
)
pieces = st.lists(
    st.tuples(st.sampled_from([0, 1, 4095, 4096, 70_000, 1 << 20]), st.binary(max_size=300)),
    max_size=4,
)
rich_files = st.builds(
    lambda mode, ns, data, holes, xattrs: Tree(
        stat.S_IFREG | mode, ns, data, holes=holes, xattrs=xattrs
    ),
    permissions,
    odd_times,
    contents,
    st.one_of(st.just([]), pieces),
    user_xattrs,
)
devices = st.builds(
    lambda kind, mode, ns, major, minor, xattrs: Tree(
        kind | mode, ns, rdev=os.makedev(major, minor), xattrs=xattrs
    ),
    st.sampled_from([stat.S_IFCHR, stat.S_IFBLK]),
    permissions,
    odd_times,
    st.sampled_from([0, 1, 255, 4095]),
    st.sampled_from([0, 1, 255, 256, (1 << 20) - 1]),
    other_xattrs,
)
sockets = st.builds(lambda mode, ns: Tree(stat.S_IFSOCK | mode, ns), permissions, odd_times)


def rich_directories(things: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    return st.builds(
        lambda mode, ns, children, xattrs: Tree(
            stat.S_IFDIR | mode | 0o700, ns, children=children, xattrs=xattrs
        ),
        permissions,
        odd_times,
        st.dictionaries(names, things, max_size=12),
        user_xattrs,
    )


def wide(count: int) -> Tree:
    """A directory of *count* files, more than one block has."""
    children = {b"%05d" % n + b"w" * (n % 60): Tree(0o100644, n, b"%d" % n) for n in range(count)}
    return Tree(0o040755, children=children)


def deep(levels: int) -> Tree:
    """Directories in each other."""
    tree = Tree(0o040755, children={b"end": Tree(0o100600, content=b"end")})
    for level in range(levels):
        tree = Tree(0o040755, level, children={b"d": tree})
    return tree


def rich_trees() -> st.SearchStrategy[Tree]:
    """Directories of everything, sometimes very wide or deep, some things with several names."""
    leaves = st.one_of(rich_files, symlinks, fifos, devices, sockets)
    shapes = st.one_of(st.builds(wide, st.integers(0, 600)), st.builds(deep, st.integers(0, 60)))
    trees = st.recursive(st.one_of(leaves, leaves, leaves, shapes), rich_directories, max_leaves=30)
    links = st.lists(st.tuples(st.integers(0, 100), names), max_size=5)
    return st.builds(lambda tree, links: replace(tree, links=links), rich_directories(trees), links)


def write_behind_holes(place: Path, holes: list[tuple[int, bytes]]) -> None:
    """Append each piece behind a gap that is not written."""
    if not holes:
        return
    with place.open("r+b") as file:
        at = file.seek(0, os.SEEK_END)
        for gap, piece in holes:
            at += gap
            file.seek(at)
            file.write(piece)
            at += len(piece)
        file.truncate(at)


def add_links(files: list[Path], root: Path, links: list[tuple[int, bytes]]) -> None:
    """Further names in *root* for *files*; a number chooses the file."""
    for number, name in links:
        new = root / os.fsdecode(name)
        if files and not os.path.lexists(new):
            new.hardlink_to(files[number % len(files)])


def make(tree: Tree, path: Path) -> None:
    """Put *tree* on disk as *path*."""
    waiting = [(path, tree)]
    made = []
    while waiting:
        place, node = waiting.pop()
        kind = stat.S_IFMT(node.mode)
        if kind == stat.S_IFDIR:
            place.mkdir()
            waiting.extend(
                (place / os.fsdecode(name), child) for name, child in node.children.items()
            )
        elif kind == stat.S_IFREG:
            place.write_bytes(node.content)
            write_behind_holes(place, node.holes)
        elif kind == stat.S_IFLNK:
            place.symlink_to(os.fsdecode(node.content))
        elif kind == stat.S_IFIFO:
            os.mkfifo(place)
        else:
            os.mknod(place, node.mode, node.rdev)
        made.append((place, node))
    # Images keep names of one inode together for regular files only.
    add_links([place for place, node in made if stat.S_ISREG(node.mode)], path, tree.links)
    for place, node in reversed(made):
        for key, value in node.xattrs.items():
            os.setxattr(place, key, value, follow_symlinks=False)
        if stat.S_IFMT(node.mode) != stat.S_IFLNK:
            place.chmod(stat.S_IMODE(node.mode))
        os.utime(place, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
