import pytest

from nydusd.base.errors import ConfigError
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.hints import (
    files_to_prefetch,
    parse_path_list,
    spans_to_prefetch,
    wants_everything,
)
from tests.rafs.made import DIRECTORY, REGULAR, ImageV5, InodeV5, chunk_v5, root_v5


def image(prefetch: list[int]) -> Bootstrap:
    """`/a`, `/d/x`, `/d/y`; numbers 2, 4, 5; the directory is 3."""
    return ImageV5(
        [
            root_v5(2),
            InodeV5(b"a", REGULAR, 4096, chunks=chunk_v5(index=0)),
            InodeV5(b"d", DIRECTORY, child_index=4, child_count=2),
            InodeV5(b"x", REGULAR, 4096, parent=3, chunks=chunk_v5(index=1)),
            InodeV5(b"y", REGULAR, 4096, parent=3, chunks=chunk_v5(index=99)),
        ],
        prefetch=prefetch,
    ).open()


def test_a_list_has_one_absolute_path_a_line() -> None:
    assert parse_path_list(b"/a\n\n /b c \r\n/\xff") == [b"/a", b"/b c", b"/\xff"]
    with pytest.raises(ConfigError, match=r"invalid prefetch file list: line 2 is b'b'"):
        parse_path_list(b"/a\nb\n")


def test_the_table_of_the_image_is_followed_in_its_order() -> None:
    assert list(files_to_prefetch(image([3, 2]))) == [4, 5, 2]


def test_a_list_takes_the_place_of_the_table() -> None:
    assert list(files_to_prefetch(image([3]), [b"/a"])) == [2]
    assert list(files_to_prefetch(image([2]), [b"/d", b"/missing", b"/"])) == [4, 5, 2, 4, 5]


def test_the_root_alone_means_everything() -> None:
    assert wants_everything(image([1]), None)
    assert wants_everything(image([2]), [b"/"])
    assert wants_everything(image([2]), None, prefetch_all=True)
    assert not wants_everything(image([1, 2]), None)
    assert not wants_everything(image([1]), [b"/a"])
    assert not wants_everything(image([]), None)


def test_a_broken_file_is_logged_and_left_out(caplog: pytest.LogCaptureFixture) -> None:
    spans = list(spans_to_prefetch(image([3, 2])))

    assert [span.chunk_index for span in spans] == [1, 0]
    assert "prefetch of inode 5 ends early" in caplog.text


def test_a_number_that_the_image_does_not_have_is_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert list(files_to_prefetch(image([77, 2]))) == [2]
    assert "prefetch of inode 77" in caplog.text
