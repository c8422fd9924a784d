"""From what a run read first to a list of what to fetch first.

A daemon with `access_pattern` remembers when each file was read for the first time and tells it as
JSON (`GET /api/v1/metrics/pattern`), by inode number. Here numbers become paths of the image, in
that order: the list that `nydusd --prefetch-files` and `nydus-image create --prefetch-policy` read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from nydusd.base.errors import BuildError
from nydusd.rafs.load import load_bootstrap

if TYPE_CHECKING:
    from pathlib import Path

    from nydusd.rafs.bootstrap import Bootstrap

PATTERN_BYTES_MAX = 1 << 30


def prefetch_list(bootstrap: Path, pattern: bytes) -> tuple[list[bytes], int]:
    """The list for the image *bootstrap* that was read as *pattern* tells; see `paths_in_order`."""
    return paths_in_order(load_bootstrap(bootstrap), first_reads(pattern))


def first_reads(pattern: bytes) -> list[int]:
    """Inode numbers of *pattern*, by the time of their first read; `BuildError` for other JSON."""
    try:
        rows = json.loads(pattern)
        timed = [
            (row["first_access_time_secs"], row["first_access_time_nanos"], row["ino"])
            for row in rows
        ]
    except (ValueError, TypeError, KeyError, RecursionError) as exc:
        raise BuildError(
            "the access pattern is not what GET /api/v1/metrics/pattern tells: "
            f"{type(exc).__name__} {str(exc)[:80]}"
        ) from None
    if not all(type(number) is int for row in timed for number in row):
        raise BuildError("the access pattern has times or inode numbers that are no numbers")
    return [ino for *_, ino in sorted(timed)]


def paths_in_order(bootstrap: Bootstrap, inos: list[int]) -> tuple[list[bytes], int]:
    """A path for each of *inos*, in their order, and how many a list cannot name.

    Of the names of a hard link the first counts. A path with a line break cannot stand in a
    list, and an inode that the image does not have is of another image.
    """
    wanted = set(inos)
    paths: dict[int, bytes] = {}
    for entry in bootstrap.walk(b"/"):
        if entry.ino in wanted and entry.ino not in paths:
            paths[entry.ino] = entry.path
            if len(paths) == len(wanted):
                break
    named = [paths[ino] for ino in dict.fromkeys(inos) if ino in paths]
    good = [path for path in named if path == path.strip() and not set(b"\r\n") & set(path)]
    return good, len(wanted) - len(good)
