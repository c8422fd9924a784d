"""The image below a new layer: its tree, its blobs and its chunks."""

from pathlib import Path
from typing import NamedTuple

from nydusd.base.errors import UnsupportedError
from nydusd.rafs.blobs import BlobInfo
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode


class LowerImage(NamedTuple):
    """What a parent bootstrap holds."""

    root: TreeNode
    blobs: list[BlobInfo]


def load_parent(path: Path, options: object, chunks: ChunkTable) -> LowerImage:
    """The image of the bootstrap *path*, its chunks added to *chunks*."""
    raise UnsupportedError(f"{path}: parent bootstraps are not read yet")
