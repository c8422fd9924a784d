"""Records and limits of v5; whole bootstraps are held to golden ones in tests/build."""

import stat
from dataclasses import replace

import pytest

from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor, Digester
from nydusd.rafs.read_v5 import BootstrapV5
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode, number_nodes
from nydusd.rafs.write_v5 import write_v5
from nydusd.rafs.writing import HEAD, ImageSettings

SETTINGS = ImageSettings(
    chunk_size=4096,
    compressor=Compressor.ZSTD,
    digester=Digester.BLAKE3,
    explicit_uid_gid=True,
    revision=HEAD,
)


def directory(*children: TreeNode) -> TreeNode:
    root = TreeNode(b"/", stat.S_IFDIR | 0o755)
    root.children = list(children)
    return root


def written(root: TreeNode, settings: ImageSettings = SETTINGS) -> BootstrapV5:
    nodes = number_nodes(root, link_specials=False)
    for node in nodes:
        node.digest = bytes(32)
    data = write_v5(nodes, ChunkTable(1), settings, [])
    assert len(data) % 8 == 0
    return BootstrapV5(Mapping.of_bytes(data))


@pytest.mark.parametrize("length", [1, 7, 8, 9, 255])
def test_names_targets_and_attributes_of_every_length_come_back(length):
    link = TreeNode(b"n" * length, stat.S_IFLNK | 0o777)
    link.target = b"t" * length
    link.size = length
    link.xattrs = [(b"user.a", b"v" * length), (b"user.b", b"")]

    bootstrap = written(directory(link))

    ino = bootstrap.find(b"/" + link.name)
    assert bootstrap.target(ino) == link.target
    assert bootstrap.xattrs(ino) == dict(link.xattrs)


def test_sizes_and_blocks_of_directories_are_made_up_from_their_names():
    children = [TreeNode(b"%0100d" % number, stat.S_IFREG) for number in range(50)]

    bootstrap = written(directory(*children))

    root = bootstrap.stat(1)
    assert (root.size, root.blocks) == (8192, 16)


def test_blob_ids_of_any_length_are_read_back():
    blobs = [
        BlobInfo(
            blob_index=index,
            blob_id="b" * (index + 1),
            meta_blob_id="",
            chunk_size=4096,
            chunk_count=index + 1,
            compressor=Compressor.ZSTD,
            digester=Digester.BLAKE3,
            features=BlobFeature.CAP_TAR_TOC,
            compressed_size=100,
            data_size=100,
            uncompressed_size=200,
            prefetch_size=index,
        )
        for index in range(20)
    ]

    bootstrap = written(directory(), replace(SETTINGS, blobs=blobs))

    assert [(blob.blob_id, blob.prefetch_size) for blob in bootstrap.blobs] == [
        (blob.blob_id, blob.prefetch_size) for blob in blobs
    ]


def test_a_node_without_a_digest_is_never_written():
    root = directory()
    with pytest.raises(AssertionError, match="no digest"):
        write_v5(number_nodes(root, link_specials=False), ChunkTable(1), SETTINGS, [])
