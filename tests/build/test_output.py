import os
import threading

import pytest

from nydusd.base.errors import BuildError
from nydusd.build.output import IOV_MAX, OutputFile


def test_a_file_gets_its_name_when_it_is_complete(tmp_path):
    with OutputFile(None, tmp_path) as output:
        output.write([b"one", b"two"])
        assert not (tmp_path / "name").exists()
        assert output.finish("name") == tmp_path / "name"

    assert (tmp_path / "name").read_bytes() == b"onetwo"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


def test_an_unfinished_file_leaves_nothing(tmp_path):
    with OutputFile(None, tmp_path) as output:
        output.write([b"one"])

    assert list(tmp_path.iterdir()) == []


def test_a_file_of_that_name_is_replaced(tmp_path):
    (tmp_path / "name").write_bytes(b"first")

    with OutputFile(None, tmp_path) as output:
        output.write([b"second"])
        output.finish("name")

    assert (tmp_path / "name").read_bytes() == b"second"


def test_a_file_that_was_there_stays_until_the_new_one_is_complete(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"the one before")
    file.chmod(0o604)

    with OutputFile(file) as unfinished:
        unfinished.write([b"half"])
    assert file.read_bytes() == b"the one before"

    with OutputFile(file) as output:
        output.write([b"whole"])
        assert output.finish("") == file
    assert file.read_bytes() == b"whole"
    assert file.stat().st_mode & 0o777 == 0o604
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_to_a_file_stays_one(tmp_path):
    link = tmp_path / "link"
    link.symlink_to("file")

    with OutputFile(link) as output:
        output.write([b"data"])
        output.finish("")

    assert link.is_symlink()
    assert (tmp_path / "file").read_bytes() == b"data"


def test_an_unfinished_file_at_a_path_leaves_nothing(tmp_path):
    with OutputFile(tmp_path / "file") as output:
        output.write([b"half"])

    assert list(tmp_path.iterdir()) == []


def test_the_umask_decides_who_may_read(tmp_path):
    before = os.umask(0o027)
    try:
        with OutputFile(None, tmp_path) as output:
            path = output.finish("name")
    finally:
        os.umask(before)

    assert path.stat().st_mode & 0o777 == 0o640


def test_more_buffers_than_one_call_takes_are_written(tmp_path):
    with OutputFile(tmp_path / "file") as output:
        output.write([b"%d," % number for number in range(3 * IOV_MAX)])
        output.finish("")

    assert (tmp_path / "file").read_bytes().count(b",") == 3 * IOV_MAX


def test_a_fifo_is_written_as_it_is(tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()

    with OutputFile(fifo) as output:
        output.write([b"x" * 200_000])
        assert output.finish("") == fifo

    reader.join()
    assert got == [b"x" * 200_000]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(BuildError, match="no/file: No such file"):
        OutputFile(tmp_path / "no" / "file")
