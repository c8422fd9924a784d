import stat

from nydusd.build.overlay import WhiteoutSpec, is_whiteout, merge_layers, take_opaque_mark
from nydusd.rafs.write_tree import TreeNode


def file(name: bytes) -> TreeNode:
    return TreeNode(name, stat.S_IFREG | 0o644)


def folder(name: bytes, *children: TreeNode, mode: int = 0o755) -> TreeNode:
    made = TreeNode(name, stat.S_IFDIR | mode)
    made.children = list(children)
    return made


def names(node: TreeNode) -> list[bytes]:
    return sorted(child.name for child in node.children or ())


def test_an_oci_whiteout_has_a_name_of_text():
    assert is_whiteout(file(b".wh.x"), WhiteoutSpec.OCI)
    assert not is_whiteout(file(b".wh.\xff"), WhiteoutSpec.OCI)
    assert not is_whiteout(file(b".wh.x"), WhiteoutSpec.NONE)


def test_an_overlayfs_whiteout_is_the_device_0_0():
    device = TreeNode(b"x", stat.S_IFCHR)
    assert is_whiteout(device, WhiteoutSpec.OVERLAYFS)
    device.rdev = 0x103
    assert not is_whiteout(device, WhiteoutSpec.OVERLAYFS)


def test_the_mark_of_an_opaque_directory_is_no_attribute_of_the_image():
    node = folder(b"d")
    node.xattrs = [(b"trusted.overlay.opaque", b"y"), (b"user.x", b"")]

    take_opaque_mark(node, WhiteoutSpec.OVERLAYFS)

    assert node.is_opaque
    assert node.xattrs == [(b"user.x", b"")]


def test_whiteouts_count_before_files_of_the_same_layer():
    upper = folder(b"/", file(b".wh.a"), file(b"a"))

    merged = merge_layers(folder(b"/", file(b"a"), file(b"b")), upper, WhiteoutSpec.OCI)

    assert names(merged) == [b"a", b"b"]


def test_an_opaque_directory_hides_what_is_below():
    lower = folder(b"/", folder(b"d", file(b"old")))

    merged = merge_layers(
        lower, folder(b"/", folder(b"d", file(b".wh..wh..opq"), file(b"new"))), WhiteoutSpec.OCI
    )

    assert names(merged.children[0]) == [b"new"]


def test_a_directory_over_a_directory_keeps_children_and_takes_attributes():
    lower = folder(b"/", folder(b"d", file(b"old")))

    merged = merge_layers(lower, folder(b"/", folder(b"d", mode=0o700)), WhiteoutSpec.OCI)

    assert names(merged.children[0]) == [b"old"]
    assert stat.S_IMODE(merged.children[0].mode) == 0o700


def test_another_type_replaces_all_that_was_there():
    lower = folder(b"/", folder(b"d", file(b"old")), file(b"f"))

    merged = merge_layers(
        lower, folder(b"/", file(b"d"), folder(b"f", file(b"in"))), WhiteoutSpec.OCI
    )

    assert [(child.name, names(child)) for child in merged.children] == [
        (b"d", []),
        (b"f", [b"in"]),
    ]


def test_the_root_can_keep_its_attributes():
    lower = folder(b"/", file(b"old"), mode=0o711)

    merged = merge_layers(
        lower, folder(b"/", file(b"new")), WhiteoutSpec.OCI, root_from_upper=False
    )

    assert merged is lower
    assert names(merged) == [b"new", b"old"]
