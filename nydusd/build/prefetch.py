"""Prefetch patterns: what goes first in the blob, and what the prefetch table names."""

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from nydusd.build.node import shown
from nydusd.rafs.write_tree import TreeNode

logger = logging.getLogger("nydusd")

PathParts = tuple[bytes, ...]


class PrefetchPolicy(StrEnum):
    """What the patterns do: `fs` also fills the prefetch table, `blob` tells v5's readahead."""

    FS = "fs"
    BLOB = "blob"
    NONE = "none"


def parts_of(path: bytes) -> PathParts:
    """The names on the way of *path*; doubled slashes and dots say nothing."""
    return tuple(part for part in path.split(b"/") if part not in (b"", b"."))


def read_patterns(lines: Iterable[bytes], drop_nested: bool) -> list[PathParts]:
    """The absolute paths of *lines*, in order and each once; others are warned of.

    With *drop_nested* a path below an earlier one is dropped, as it says nothing new.
    """
    patterns: dict[PathParts, None] = {}
    for line in lines:
        path = line.strip()
        if not path.startswith(b"/"):
            logger.warning("prefetch pattern %r is not an absolute path: ignored", shown(path))
            continue
        parts = parts_of(path)
        if drop_nested and any(parts[: len(known)] == known for known in patterns):
            continue
        patterns[parts] = None
    return list(patterns)


@dataclass(slots=True)
class PrefetchPlan:
    """What the patterns meant for one tree."""

    files: list[TreeNode] = field(default_factory=list)  # to be packed first, in order
    table: list[TreeNode] = field(default_factory=list)  # exact matches, in pattern order
    pattern_count: int = 0


def with_parts(root: TreeNode) -> Iterator[tuple[TreeNode, PathParts]]:
    """Every node below *root* and itself, with its path inside the image."""
    waiting: list[tuple[TreeNode, PathParts]] = [(root, ())]
    while waiting:
        node, parts = waiting.pop()
        yield node, parts
        for child in node.children or ():
            waiting.append((child, (*parts, child.name)))  # noqa: PERF401 - clearer than extend


def plan_prefetch(root: TreeNode, patterns: list[PathParts], by_pattern: bool) -> PrefetchPlan:
    """Files and table entries that *patterns* name in the numbered tree of *root*.

    Empty files are never prefetched. Files come in path order, or with *by_pattern* in the order
    of the pattern that names them, then in index order.
    """
    plan = PrefetchPlan(pattern_count=len(patterns))
    if not patterns:
        return plan
    numbers = {pattern: number for number, pattern in enumerate(patterns)}
    depths = sorted({len(pattern) for pattern in patterns})
    exact: dict[PathParts, TreeNode] = {}
    files: list[tuple[int, PathParts, TreeNode]] = []
    for node, parts in with_parts(root):
        if node.is_regular and node.size == 0:
            continue
        if parts in numbers:
            exact[parts] = node
        if not node.is_regular:
            continue
        matches = [numbers[parts[:n]] for n in depths if n <= len(parts) and parts[:n] in numbers]
        if matches:
            files.append((min(matches), parts, node))
    if by_pattern:
        files.sort(key=lambda row: (row[0], row[2].index))
    else:
        files.sort(key=lambda row: row[1])
    plan.files = [node for _, _, node in files]
    plan.table = [exact[pattern] for pattern in patterns if pattern in exact]
    return plan
