import json

import pytest

from nydusd.base.errors import BuildError
from nydusd.build.prefetch_list import first_reads, paths_in_order
from nydusd.cli.nydus_image import main
from nydusd.rafs.load import load_bootstrap


def pattern_of(*rows: tuple[int, int, int]) -> bytes:
    return json.dumps(
        [
            {"ino": ino, "nr_read": 1, "first_access_time_secs": s, "first_access_time_nanos": ns}
            for ino, s, ns in rows
        ]
    ).encode()


@pytest.fixture
def image(tmp_path):
    source = tmp_path / "source"
    (source / "bin").mkdir(parents=True)
    for name in ("one", "bin/two", "three", "bin/line\nbreak"):
        (source / name).write_bytes(name.encode())
    (source / "zzz").hardlink_to(source / "one")
    boot = tmp_path / "boot"
    assert main(["create", "-B", str(boot), "-b", str(tmp_path / "blob"), str(source)]) == 0
    return boot


def inos(bootstrap, *paths: bytes) -> list[int]:
    return [bootstrap.find(path) for path in paths]


def test_files_come_by_the_time_of_their_first_read():
    assert first_reads(pattern_of((7, 5, 0), (8, 4, 9), (9, 4, 8))) == [9, 8, 7]


@pytest.mark.parametrize(
    "text", [b"", b"{}x", b"[1]", b'[{"ino": 1}]', b"null", b"[" * 100_000, b"\xff"]
)
def test_other_input_is_refused(text):
    with pytest.raises(BuildError, match="access pattern"):
        first_reads(text)


def test_times_that_are_no_numbers_are_refused():
    with pytest.raises(BuildError, match="no numbers"):
        first_reads(pattern_of((1, "2", 3)))


def test_paths_have_the_order_of_the_inodes(image):
    bootstrap = load_bootstrap(image)
    wanted = inos(bootstrap, b"/three", b"/bin/two", b"/zzz")
    assert paths_in_order(bootstrap, wanted) == ([b"/three", b"/bin/two", b"/one"], 0)


def test_what_a_list_cannot_name_is_counted(image):
    bootstrap = load_bootstrap(image)
    wanted = [*inos(bootstrap, b"/bin/line\nbreak", b"/one"), 1 << 40]
    assert paths_in_order(bootstrap, wanted) == ([b"/one"], 2)


def test_the_command_prints_a_list_that_prefetch_reads(image, tmp_path, capfdbinary):
    from nydusd.rafs.hints import files_to_prefetch, parse_path_list

    bootstrap = load_bootstrap(image)
    wanted = inos(bootstrap, b"/bin/two", b"/one")
    file = tmp_path / "pattern.json"
    file.write_bytes(pattern_of((wanted[1], 9, 0), (wanted[0], 3, 0)))
    capfdbinary.readouterr()
    assert main(["prefetch-list", "-B", str(image), str(file)]) == 0
    printed = capfdbinary.readouterr().out
    assert printed == b"/bin/two\n/one\n"
    assert list(files_to_prefetch(bootstrap, parse_path_list(printed))) == wanted
