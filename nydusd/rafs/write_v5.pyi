from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode
from nydusd.rafs.writing import ImageSettings

def write_v5(
    nodes: list[TreeNode],
    chunks: ChunkTable,
    settings: ImageSettings,
    prefetch: list[TreeNode],
) -> bytearray: ...
