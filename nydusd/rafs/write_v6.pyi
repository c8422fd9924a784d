from nydusd.rafs.blobs import BlobInfo
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode
from nydusd.rafs.writing import ImageSettings

XATTR_PREFIXES: tuple[tuple[bytes, int], ...]

def shown(node: TreeNode) -> str: ...
def xattr_prefix(name: bytes) -> tuple[bytes, int]: ...
def check_blobs(blobs: list[BlobInfo]) -> None: ...
def write_v6(
    root: TreeNode,
    nodes: list[TreeNode],
    chunks: ChunkTable,
    settings: ImageSettings,
    prefetch: list[TreeNode | None],
) -> bytearray: ...
