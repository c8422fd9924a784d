from nydusd.rafs.blobs import BlobInfo
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode
from nydusd.rafs.writing import ImageSettings

def check_blobs(blobs: list[BlobInfo]) -> None: ...
def write_v6(
    root: TreeNode,
    nodes: list[TreeNode],
    chunks: ChunkTable,
    settings: ImageSettings,
    prefetch: list[TreeNode | None],
) -> bytearray: ...
