"""What to fetch first: the operator's list of paths, the image's prefetch table, or everything.

Iterators over the tree, so that nothing waits for a walk of a large image; a broken part of it is
logged and left out. Knows the bootstrap only; the cache's prefetch threads ask.
"""

import logging
import stat
from collections.abc import Iterator, Sequence

from nydusd.base.errors import BootstrapError, ConfigError
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.records import Span

logger = logging.getLogger("nydusd.rafs")

_ROOT = b"/"


def parse_path_list(text: bytes) -> list[bytes]:
    """The paths of a prefetch list, one a line; `ConfigError` when one is not absolute."""
    paths = [line.strip() for line in text.splitlines()]
    for number, path in enumerate(paths, 1):
        if path and not path.startswith(_ROOT):
            raise ConfigError(
                f"invalid prefetch file list: line {number} is {path!r}, not an absolute path "
                "in the image"
            )
    return [path for path in paths if path]


def wants_everything(
    bootstrap: Bootstrap, paths: Sequence[bytes] | None, *, prefetch_all: bool = False
) -> bool:
    """Whether all of the image is to be fetched: asked for, or the root is all that is named."""
    if prefetch_all:
        return True
    if paths:
        return list(paths) == [_ROOT]
    return bootstrap.prefetch_inos == [bootstrap.root_ino]


def files_to_prefetch(bootstrap: Bootstrap, paths: Sequence[bytes] | None = None) -> Iterator[int]:
    """Inode numbers of the regular files to fetch first, in order; directories mean all below.

    *paths* take the place of the image's own table; one that is not in the image is left out. A
    file that is named twice comes twice.
    """
    starts = _inos_of_paths(bootstrap, paths) if paths else iter(bootstrap.prefetch_inos)
    for start in starts:
        try:
            for entry in bootstrap.walk_inode(start):
                if stat.S_ISREG(bootstrap.stat(entry.ino).mode):
                    yield entry.ino
        except (OSError, BootstrapError) as error:
            logger.warning("prefetch of inode %d ends early: %s", start, error)


def spans_to_prefetch(bootstrap: Bootstrap, paths: Sequence[bytes] | None = None) -> Iterator[Span]:
    """Spans of the files to fetch first, in order; see `files_to_prefetch`."""
    for ino in files_to_prefetch(bootstrap, paths):
        try:
            yield from bootstrap.chunk_spans(ino)
        except OSError as error:
            logger.warning("prefetch of inode %d ends early: %s", ino, error)


def _inos_of_paths(bootstrap: Bootstrap, paths: Sequence[bytes]) -> Iterator[int]:
    for path in paths:
        try:
            yield bootstrap.find(path)
        except OSError as error:
            logger.info("prefetch of %r is left out: %s", path, error)
