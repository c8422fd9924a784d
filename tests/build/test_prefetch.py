import stat

from nydusd.build.prefetch import plan_prefetch, read_patterns
from nydusd.rafs.write_tree import TreeNode, number_nodes


def node(name: bytes, *children: TreeNode, size: int = 1) -> TreeNode:
    made = TreeNode(name, (stat.S_IFDIR if children else stat.S_IFREG) | 0o755)
    if children:
        made.children = list(children)
    else:
        made.size = size
    return made


def tree() -> TreeNode:
    root = node(
        b"/",
        node(b"a", node(b"b", size=0), node(b"c")),
        node(b"a-b"),
        node(b"z"),
    )
    number_nodes(root, link_specials=True)
    return root


def test_patterns_are_absolute_and_each_counts_once(caplog):
    patterns = read_patterns([b"/a\n", b"a\n", b" //a/ \n", b"/a/./c"], drop_nested=False)

    assert patterns == [(b"a",), (b"a", b"c")]
    assert "not an absolute path" in caplog.text


def test_patterns_below_others_can_be_dropped():
    assert read_patterns([b"/a", b"/a/c", b"/a-b"], drop_nested=True) == [(b"a",), (b"a-b",)]


def test_a_directory_brings_its_files_but_no_empty_ones():
    plan = plan_prefetch(tree(), [(b"a",)], by_pattern=False)

    assert [found.name for found in plan.files] == [b"c"]
    assert [found.name for found in plan.table] == [b"a"]


def test_files_come_in_path_order_or_in_pattern_order():
    patterns = [(b"z",), (b"a-b",), (b"a",)]

    by_path = plan_prefetch(tree(), patterns, by_pattern=False)
    by_pattern = plan_prefetch(tree(), patterns, by_pattern=True)

    assert [found.name for found in by_path.files] == [b"c", b"a-b", b"z"]
    assert [found.name for found in by_pattern.files] == [b"z", b"a-b", b"c"]


def test_the_root_stands_for_everything():
    plan = plan_prefetch(tree(), [()], by_pattern=False)

    assert [found.name for found in plan.files] == [b"c", b"a-b", b"z"]
    assert [found.name for found in plan.table] == [b"/"]
