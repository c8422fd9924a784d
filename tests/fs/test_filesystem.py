"""What the gate between the compiled side and a file system in Python makes of answers."""

from __future__ import annotations

import errno

import pytest

from nydusd.fs.filesystem import Filesystem, PyFilesystem
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fs.memory import MemoryFs
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel


def ask(filesystem: Filesystem, opcode: int, arg: bytes = b"", node: int = wire.ROOT_NODE) -> bytes:
    vfs = Vfs()
    vfs.mount(filesystem, "/")
    deferred = DeferredReads(vfs)
    deferred.start()
    kernel = Kernel(Server(vfs, deferred))
    try:
        return kernel.ask(opcode, arg, node)
    finally:
        kernel.close()
        deferred.stop(-errno.EIO)


class Broken(MemoryFs):
    def stat(self, ino):
        raise KeyError("a mistake in the file system")

    def read_file(self, ino, handle, offset, size):
        raise KeyError("a mistake in the file system")


class Foolish(MemoryFs):
    def stat(self, ino):
        return "no Stat"


@pytest.mark.parametrize("opcode", [wire.GETATTR, wire.READ])
def test_an_unexpected_exception_is_eio_and_logged(caplog, opcode):
    with pytest.raises(OSError, match="Input/output error"):
        ask(Broken({b"f": b""}), opcode, bytes(40), node=1 << 56 | 2)
    assert "a mistake in the file system" in caplog.text


def test_an_answer_of_the_wrong_kind_is_eio(caplog):
    with pytest.raises(OSError, match="Input/output error"):
        ask(Foolish({}), wire.GETATTR, bytes(16))
    assert "AttributeError" in caplog.text


def test_an_oserror_is_an_answer_and_not_logged():
    with pytest.raises(FileNotFoundError):
        ask(MemoryFs({}), wire.GETATTR, bytes(16), node=1 << 56 | 99)


@pytest.mark.parametrize("opcode", [wire.LOOKUP, wire.GETATTR, wire.READLINK, wire.READ])
def test_a_file_system_without_operations_refuses_each(opcode):
    arg = b"name\0" if opcode == wire.LOOKUP else bytes(40)
    with pytest.raises(OSError, match="Function not implemented"):
        ask(Filesystem(), opcode, arg)


@pytest.mark.parametrize(
    ("opcode", "arg", "code"),
    [
        (wire.LOOKUP, b"name\0", errno.ENOENT),
        (wire.GETATTR, bytes(16), errno.ENOENT),
        (wire.READLINK, b"", errno.EINVAL),
        (wire.READDIR, wire.read_arg(0, 100), errno.ENOTDIR),
        (wire.GETXATTR, bytes(8) + b"name\0", errno.ENODATA),
        (wire.READ, wire.read_arg(0, 100), errno.EIO),
    ],
)
def test_a_python_file_system_without_methods_answers_as_an_empty_one(opcode, arg, code):
    with pytest.raises(OSError, match=rf"\[Errno {code}\]"):
        ask(PyFilesystem(), opcode, arg)
