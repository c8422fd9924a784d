"""Layout and limits of v6; whole bootstraps are held to golden ones in tests/build."""

import stat
from dataclasses import replace

import pytest

from nydusd.base.errors import BuildError
from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor, Digester
from nydusd.rafs.read_v6 import BootstrapV6
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode, number_nodes
from nydusd.rafs.write_v6 import write_v6
from nydusd.rafs.writing import HEAD, ImageSettings

SETTINGS = ImageSettings(
    chunk_size=4096,
    compressor=Compressor.NONE,
    digester=Digester.SHA256,
    explicit_uid_gid=True,
    revision=HEAD,
)
BLOB = BlobInfo(
    blob_index=0,
    blob_id="b" * 64,
    meta_blob_id="b" * 64,
    chunk_size=4096,
    chunk_count=1,
    compressor=Compressor.NONE,
    digester=Digester.SHA256,
    features=BlobFeature.ALIGNED | BlobFeature.CAP_TAR_TOC,
    compressed_size=4096,
    data_size=4096,
    uncompressed_size=4096,
    ci_uncompressed_size=16,
    ci_compressed_size=16,
)


def directory(*children: TreeNode) -> TreeNode:
    root = TreeNode(b"/", stat.S_IFDIR | 0o755)
    root.children = list(children)
    return root


def file(name: bytes, **attributes: object) -> TreeNode:
    node = TreeNode(name, stat.S_IFREG | 0o644)
    for key, value in attributes.items():
        setattr(node, key, value)
    return node


def written(root: TreeNode, settings: ImageSettings = SETTINGS) -> BootstrapV6:
    nodes = number_nodes(root, link_specials=False)
    data = write_v6(root, nodes, ChunkTable(4096), settings, [])
    assert len(data) % 4096 == 0
    return BootstrapV6(Mapping.of_bytes(data))


@pytest.mark.parametrize("name", [b"!", b"-x", b".!", b"..!", b"...", b"a"])
def test_dot_and_dotdot_stand_where_their_names_sort(name):
    bootstrap = written(directory(file(name)))

    found = [entry.name for entry in bootstrap.entries(bootstrap.root_ino)]

    assert found == sorted([b".", b"..", name])


@pytest.mark.parametrize("length", [1, 100, 255])
@pytest.mark.parametrize("count", [1, 15, 16, 270, 341, 2000])
def test_every_name_of_a_directory_is_found(length, count):
    names = [b"%05d" % number + b"n" * (length - 5) for number in range(count)]
    if length == 1:
        names = [b"%d" % number for number in range(count)]
    bootstrap = written(directory(*(file(name) for name in names)))

    for name in names:
        assert bootstrap.child(bootstrap.root_ino, name)


@pytest.mark.parametrize("length", [1, 4000, 4031, 4032, 4033, 4095, 4096, 5000, 8192])
def test_targets_of_every_length_come_back(length):
    link = TreeNode(b"link", stat.S_IFLNK | 0o777)
    link.target = bytes(ord("a") + number % 26 for number in range(length))
    link.size = length

    bootstrap = written(directory(link))

    assert bootstrap.target(bootstrap.find(b"/link")) == link.target


def test_the_largest_attribute_area_is_stored_and_a_larger_one_refused():
    name = b"user.x"
    values = [(name + b"%d" % number, b"v" * 65_000) for number in range(4)]
    bootstrap = written(directory(file(b"f", xattrs=values)))
    assert bootstrap.xattrs(bootstrap.find(b"/f")) == dict(values)

    with pytest.raises(BuildError, match=r"its attributes take 325\d+ bytes"):
        written(directory(file(b"f", xattrs=[*values, (b"user.y", b"v" * 65_000)])))


def test_an_attribute_value_of_64_kib_is_refused():
    with pytest.raises(BuildError, match="has 65536 bytes, v6 stores at most 65535"):
        written(directory(file(b"f", xattrs=[(b"user.x", bytes(65_536))])))


def test_an_image_without_blobs_begins_its_metadata_at_the_second_block():
    bootstrap = written(directory(file(b"f")))

    assert bootstrap.root_ino == 128
    assert bootstrap.blobs == []


def test_more_blobs_than_device_numbers_are_refused():
    blobs = [BLOB._replace(blob_index=each, blob_id=f"{each:064d}") for each in range(255)]

    with pytest.raises(BuildError, match="255 blobs: a v6 image has at most 254"):
        written(directory(), replace(SETTINGS, blobs=blobs))


def test_a_blob_id_that_does_not_fit_is_refused():
    with pytest.raises(BuildError, match="v6 stores 1 to 64 bytes"):
        written(directory(), replace(SETTINGS, blobs=[BLOB._replace(blob_id="b" * 65)]))


def test_a_file_without_its_chunks_is_never_written():
    with pytest.raises(AssertionError, match="has 0 chunks, it needs 2"):
        written(directory(file(b"f", size=5000)))
