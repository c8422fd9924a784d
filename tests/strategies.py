"""What property tests draw: file system trees, as values and on disk."""

import os
import stat
from dataclasses import dataclass, field
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
    content: bytes = b""  # of a file; target of a symlink
    children: dict[bytes, "Tree"] = field(default_factory=dict)


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
        elif kind == stat.S_IFLNK:
            place.symlink_to(os.fsdecode(node.content))
        else:
            os.mkfifo(place)
        made.append((place, node))
    for place, node in reversed(made):
        if stat.S_IFMT(node.mode) != stat.S_IFLNK:
            place.chmod(stat.S_IMODE(node.mode))
        os.utime(place, ns=(node.mtime_ns, node.mtime_ns), follow_symlinks=False)
