import stat

from nydusd.rafs.write_tree import TreeNode, number_nodes

S = {"d": stat.S_IFDIR, "f": stat.S_IFREG, "l": stat.S_IFLNK}


def node(kind: str, name: bytes, *children: TreeNode, identity: object = None) -> TreeNode:
    made = TreeNode(name, S[kind] | 0o755)
    if kind == "d":
        made.children = list(children)
    made.identity = identity
    return made


def test_children_of_a_directory_have_consecutive_indexes_sorted_by_name():
    root = node("d", b"/", node("d", b"b", node("f", b"x")), node("f", b"c"), node("d", b"a"))

    nodes = number_nodes(root, link_specials=True)

    assert [each.name for each in nodes] == [b"/", b"a", b"b", b"c", b"x"]
    assert [each.index for each in nodes] == [1, 2, 3, 4, 5]
    assert [each.parent for each in nodes] == [0, 1, 1, 1, 3]
    assert [each.child_index for each in nodes if each.is_directory] == [2, 5, 5]
    assert [each.nlink for each in nodes] == [4, 2, 2, 1, 1]


def test_the_first_directory_is_finished_before_the_next():
    deep = node("d", b"a", node("d", b"in", node("f", b"1")))
    root = node("d", b"/", deep, node("d", b"b", node("f", b"2")))

    nodes = number_nodes(root, link_specials=True)

    assert [each.name for each in nodes] == [b"/", b"a", b"b", b"in", b"1", b"2"]


def test_names_of_one_file_share_the_number_of_the_first():
    root = node("d", b"/", *(node("f", name, identity=7) for name in (b"a", b"b", b"c")))

    nodes = number_nodes(root, link_specials=False)

    assert [each.ino for each in nodes] == [1, 2, 2, 2]
    assert [each.nlink for each in nodes[1:]] == [3, 3, 3]
    assert [each.first_name for each in nodes[1:]] == [None, nodes[1], nodes[1]]


def test_names_of_one_symlink_are_linked_where_the_revision_says_so():
    for link_specials, inos in ((True, [2, 2]), (False, [2, 3])):
        root = node("d", b"/", node("l", b"a", identity=1), node("l", b"b", identity=1))

        nodes = number_nodes(root, link_specials=link_specials)

        assert [each.ino for each in nodes[1:]] == inos


def test_numbering_again_starts_anew():
    root = node("d", b"/", node("f", b"a", identity=1), node("f", b"b", identity=1))
    number_nodes(root, link_specials=True)
    assert root.children is not None
    del root.children[0]

    nodes = number_nodes(root, link_specials=True)

    assert [(each.ino, each.nlink) for each in nodes] == [(1, 2), (2, 1)]


def test_a_tree_deeper_than_the_stack_is_numbered():
    root = node("d", b"/")
    here = root
    for _ in range(100_000):
        below = node("d", b"d")
        here.children = [below]
        here = below

    assert len(number_nodes(root, link_specials=True)) == 100_001
