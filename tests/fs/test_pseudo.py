"""Directories that hold mount points."""

from __future__ import annotations

import stat

import pytest

from nydusd.base.errors import MountError
from nydusd.fs.pseudo import ROOT_INO, PseudoFs, split_path


def test_directories_are_made_with_their_parents_and_found_again():
    pseudo = PseudoFs()
    inner = pseudo.make([b"a", b"b"])

    assert pseudo.make([b"a", b"b"]) == inner == 3
    assert pseudo.find(pseudo.find(ROOT_INO, b"a").ino, b"b").ino == inner
    assert pseudo.place(inner) == (2, b"b")


def test_a_directory_looks_as_the_references_does():
    found = PseudoFs().stat(ROOT_INO)

    assert (found.mode, found.nlink, found.size) == (stat.S_IFDIR | 0o777, 0, 0)


def test_a_listing_goes_on_after_its_offset():
    pseudo = PseudoFs()
    pseudo.make([b"a"])
    pseudo.make([b"b"])

    names = [entry.name for entry in pseudo.entries(ROOT_INO, 0, 0)]
    assert names == [b".", b"..", b"a", b"b"]
    rest = pseudo.entries(ROOT_INO, 0, pseudo.entries(ROOT_INO, 0, 0)[2].next_offset)
    assert [entry.name for entry in rest] == [b"b"]


@pytest.mark.parametrize("path", ["", "a", "./a", "/a/../b", "/.", "/" + "x" * 256, "/a\0b"])
def test_a_path_that_is_no_place_inside_the_mount_is_refused(path):
    with pytest.raises(MountError, match="mountpoint"):
        split_path(path)


def test_slashes_at_the_end_and_in_a_row_do_not_matter():
    assert split_path("//a///b/") == [b"a", b"b"]
    assert split_path("/") == []


def test_a_successor_keeps_the_inodes():
    pseudo = PseudoFs()
    inner = pseudo.make([b"a", b"b"])
    successor = PseudoFs()
    successor.restore(*pseudo.dump())

    assert successor.make([b"a", b"b"]) == inner
    assert successor.make([b"c"]) == 4


def test_a_saved_directory_without_parent_is_refused():
    with pytest.raises(MountError, match="saved directory"):
        PseudoFs().restore(9, [(3, 7, b"lost")])
