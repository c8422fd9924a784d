"""Where the kernel keeps the cache file of a blob."""

import pytest

from nydusd.fscache.cookies import cache_files, fan_out

# Made by a C program with the kernel's own macros (fs/fscache/main.c).
KNOWN = [
    ("erofs,shop", "app", "@3f"),
    ("erofs,d", "0123456789abcdef" * 4, "@9f"),
]


@pytest.mark.parametrize(("volume", "cookie", "folder"), KNOWN)
def test_the_kernel_hashes_names_like_this(volume, cookie, folder):
    assert fan_out(volume, cookie) == folder


def test_files_are_found_in_every_volume_of_erofs(tmp_path):
    for volume, cookie, folder in [("erofs,shop", "app", "@3f"), ("other,shop", "app", "@3f")]:
        inner = tmp_path / "cache" / f"I{volume}" / folder
        inner.mkdir(parents=True)
        (inner / f"D{cookie}").touch()
        (inner / "Dother").touch()

    assert list(cache_files(tmp_path, "app")) == [
        (tmp_path / "cache" / "Ierofs,shop" / "@3f", "Dapp")
    ]
    assert list(cache_files(tmp_path, "nobody")) == []
    assert list(cache_files(tmp_path / "nothing", "app")) == []
