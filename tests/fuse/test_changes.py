"""Requests that change a file system reach it whole, and what is cut or unknown is refused."""

from __future__ import annotations

import errno
import os
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nydusd.fs.filesystem import Filesystem, PyFilesystem
from nydusd.fs.stat import NOW, Caller, Changes
from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fs.memory import MemoryFs
from tests.fs.recorder import MADE, Recorder
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel, request

NODE = 1 << 56
CALLER = Caller(1000, 1001, 1002)


class Asker(Kernel):
    """A kernel over one file system at /, and another at /other (slot 2)."""

    def __init__(self, filesystem: Filesystem, **options):
        vfs = Vfs()
        vfs.mount(filesystem, "/")
        vfs.mount(MemoryFs({}), "/other")
        super().__init__(Server(vfs, DeferredReads(vfs), **options))

    def change(self, opcode: int, arg: bytes, node: int = NODE | 7) -> bytes:
        head = struct.pack("=IIQQIIIHH", 40 + len(arg), opcode, wire.UNIQUE, node, *CALLER, 0, 0)
        self.send(head + arg)
        unique, error, data = self.receive()
        assert unique == wire.UNIQUE
        if error:
            raise OSError(-error, os.strerror(-error))
        return data


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def kernel(recorder):
    kernel = Asker(recorder)
    yield kernel
    kernel.close()


def setattr_arg(valid: int, **fields: int) -> bytes:
    names = "fh size lock atime mtime ctime atime_nsec mtime_nsec ctime_nsec mode u4 uid gid u5"
    return struct.pack("=I4x6Q8I", valid, *[fields.get(name, 0) for name in names.split()])


def write_arg(data: bytes, size: int | None = None, flags: int = 0) -> bytes:
    size = len(data) if size is None else size
    return struct.pack("=QQIIQII", 5, 4096, size, flags, 0, 2, 0) + data


ROWS = {
    "mknod": (
        wire.MKNOD,
        struct.pack("=IIII", 0o10644, 3, 0o22, 0) + b"name\0",
        ("make_node", 7, b"name", 0o10644, 3, CALLER),
    ),
    "mkdir": (
        wire.MKDIR,
        struct.pack("=II", 0o755, 0o22) + b"name\0",
        ("make_directory", 7, b"name", 0o755, CALLER),
    ),
    "symlink": (
        wire.SYMLINK,
        b"name\0../target\0",
        ("make_symlink", 7, b"name", b"../target", CALLER),
    ),
    "link": (
        wire.LINK,
        struct.pack("=Q", NODE | 9) + b"name\0",
        ("make_link", 9, 7, b"name"),
    ),
    "create": (
        wire.CREATE,
        struct.pack("=IIII", os.O_RDWR | os.O_EXCL, 0o100600, 0, 0) + b"\xff\n\0",
        ("create_file", 7, b"\xff\n", 0o100600, os.O_RDWR | os.O_EXCL, CALLER),
    ),
    "unlink": (wire.UNLINK, b"name\0", ("remove_file", 7, b"name")),
    "rmdir": (wire.RMDIR, b"name\0", ("remove_directory", 7, b"name")),
    "rename": (
        wire.RENAME,
        struct.pack("=Q", NODE | 8) + b"old\0new\0",
        ("rename", 7, b"old", 8, b"new", 0),
    ),
    "rename2": (
        wire.RENAME2,
        struct.pack("=QII", NODE | 8, 2, 0) + b"old\0new\0",
        ("rename", 7, b"old", 8, b"new", 2),
    ),
    "rename to the root": (
        wire.RENAME,
        struct.pack("=Q", 1) + b"old\0new\0",
        ("rename", 7, b"old", 1, b"new", 0),
    ),
    "write": (wire.WRITE, write_arg(b"data"), ("write_file", 7, 5, 4096, b"data", 2, False)),
    "write and kill": (
        wire.WRITE,
        write_arg(b"d", flags=4),
        ("write_file", 7, 5, 4096, b"d", 2, True),
    ),
    "write nothing": (wire.WRITE, write_arg(b""), ("write_file", 7, 5, 4096, b"", 2, False)),
    "flush": (wire.FLUSH, struct.pack("=QIIQ", 5, 0, 0, 0), ("flush_file", 7, 5)),
    "fsync": (wire.FSYNC, struct.pack("=QII", 5, 0, 0), ("sync_file", 7, 5, False)),
    "fdatasync": (wire.FSYNC, struct.pack("=QII", 5, 1, 0), ("sync_file", 7, 5, True)),
    "fsyncdir": (wire.FSYNCDIR, struct.pack("=QII", 5, 0, 0), ("sync_directory", 7, 5, False)),
    "setxattr": (
        wire.SETXATTR,
        struct.pack("=II", 5, 1) + b"user.key\0va\0ue",
        ("set_xattr", 7, b"user.key", b"va\0ue", 1),
    ),
    "removexattr": (wire.REMOVEXATTR, b"user.key\0", ("remove_xattr", 7, b"user.key")),
    "fallocate": (
        wire.FALLOCATE,
        struct.pack("=QQQII", 5, 10, 20, 3, 0),
        ("allocate", 7, 5, 3, 10, 20),
    ),
    "lseek": (
        wire.LSEEK,
        struct.pack("=QQII", 5, 10, os.SEEK_DATA, 0),
        ("seek", 7, 5, 10, os.SEEK_DATA),
    ),
    "copy": (
        wire.COPY_FILE_RANGE,
        struct.pack("=7Q", 5, 10, NODE | 8, 6, 20, 30, 0),
        ("copy_range", 7, 5, 10, 8, 6, 20, 30),
    ),
    "access": (wire.ACCESS, struct.pack("=II", 4, 0), ("check_access", 7, 4, CALLER)),
    "setattr": (
        wire.SETATTR,
        setattr_arg(1 | 2 | 4 | 8, mode=0o100604, uid=3, gid=4, size=1 << 40),
        ("change_attributes", 7, None, Changes(0o604, 3, 4, 1 << 40)),
    ),
    "setattr of an open file": (
        wire.SETATTR,
        setattr_arg(64 | 8, fh=5, size=3),
        ("change_attributes", 7, 5, Changes(size=3)),
    ),
    "times": (
        wire.SETATTR,
        setattr_arg(16 | 32, atime=2, atime_nsec=3, mtime=2**64 - 1, mtime_nsec=5),
        (
            "change_attributes",
            7,
            None,
            Changes(atime_ns=2_000_000_003, mtime_ns=-1_000_000_000 + 5),
        ),
    ),
    "present times": (
        wire.SETATTR,
        setattr_arg(16 | 32 | 128 | 256, atime=9, mtime=9),
        ("change_attributes", 7, None, Changes(atime_ns=NOW, mtime_ns=NOW)),
    ),
    "kill privileges": (
        wire.SETATTR,
        setattr_arg(2 | 2048, uid=3),
        ("change_attributes", 7, None, Changes(uid=3, kills_privileges=True)),
    ),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_change_reaches_the_file_system_as_it_was_asked_for(kernel, recorder, what):
    opcode, arg, call = ROWS[what]

    kernel.change(opcode, arg)

    assert recorder.calls == [call]


@pytest.mark.parametrize("what", ROWS)
def test_a_change_that_is_cut_is_refused_and_never_arrives(kernel, recorder, what):
    opcode, arg, _ = ROWS[what]
    for length in range(len(arg)):
        kernel.send(request(opcode, arg[:length], NODE | 7))
        assert kernel.receive() == (wire.UNIQUE, -errno.EINVAL, b"")
    assert recorder.calls == []


@pytest.mark.parametrize("name", [b".", b"..", b"a/b", b"/", b""])
@pytest.mark.parametrize("what", ["mknod", "mkdir", "symlink", "link", "create", "unlink", "rmdir"])
def test_what_cannot_be_a_name_is_refused(kernel, recorder, what, name):
    opcode, arg, _ = ROWS[what]
    fixed = {wire.MKNOD: 16, wire.CREATE: 16, wire.MKDIR: 8, wire.LINK: 8}.get(opcode, 0)
    tail = b"target\0" if what == "symlink" else b""
    with pytest.raises(OSError, match=r"Invalid argument"):
        kernel.change(opcode, arg[:fixed] + name + b"\0" + tail)
    assert recorder.calls == []


@pytest.mark.parametrize("size", [5, 1 << 20, 2**32 - 1])
def test_a_write_of_more_than_it_brings_is_refused(kernel, recorder, size):
    with pytest.raises(OSError, match=r"Invalid argument"):
        kernel.change(wire.WRITE, write_arg(b"data", size))
    assert recorder.calls == []


@pytest.mark.parametrize("what", ["mknod", "mkdir", "symlink", "link"])
def test_what_was_made_is_told_with_its_node_and_times(kernel, what):
    node, valid, attr = wire.entry_of(kernel.change(*ROWS[what][:2]))

    assert (node, valid) == (NODE | MADE, 5)
    assert (attr["ino"], attr["size"], attr["uid"], attr["gid"]) == (node, 9, 5, 6)
    assert (attr["mtime"], attr["mtime_nsec"]) == (12, 34)
    assert (attr["atime"], attr["atime_nsec"], attr["ctime_nsec"]) == (1, 2, 3)


def test_a_created_file_is_told_with_its_handle(kernel):
    answer = kernel.change(*ROWS["create"][:2])

    assert len(answer) == 144
    assert wire.entry_of(answer)[0] == NODE | MADE
    assert struct.unpack("=QIi", answer[128:]) == (99, 2, 0)


def test_a_write_tells_how_much_was_written(kernel):
    assert kernel.change(wire.WRITE, write_arg(b"data")) == struct.pack("=II", 4, 0)


def test_a_copy_and_a_place_are_told(kernel):
    assert kernel.change(*ROWS["copy"][:2]) == struct.pack("=II", 3, 0)
    assert kernel.change(*ROWS["lseek"][:2]) == struct.pack("=Q", 4096)


def test_statistics_are_those_of_the_file_system(kernel):
    assert struct.unpack("=5Q4I24x", kernel.change(wire.STATFS, b"")) == (1, 2, 3, 4, 5, 6, 8, 7, 0)


@pytest.mark.parametrize("what", ["link", "rename", "rename2", "copy"])
def test_nothing_goes_from_one_mount_to_another(kernel, recorder, what):
    opcode, arg, _ = ROWS[what]
    there = 2 << 56 | 8
    at = 16 if what == "copy" else 0
    with pytest.raises(OSError, match=rf"\[Errno {errno.EXDEV}\]"):
        kernel.change(opcode, arg[:at] + struct.pack("=Q", there) + arg[at + 8 :])
    assert recorder.calls == []


def test_forgotten_nodes_reach_their_file_system_with_their_counts(kernel, recorder):
    kernel.send(request(wire.FORGET, struct.pack("=Q", 3), NODE | 5))
    rows = [(NODE | 5, 1), (NODE | 6, 4), (2 << 56 | 5, 9), (77 << 56, 1), (1, 2)]
    data = b"".join(struct.pack("=QQ", *row) for row in rows)
    kernel.send(request(wire.BATCH_FORGET, struct.pack("=II", len(rows), 0) + data))

    assert recorder.forgotten == {5: 4, 6: 4, 1: 2}
    assert not kernel.has_reply()


@pytest.mark.parametrize("length", [0, 7, 8, 23])
def test_a_forget_that_is_cut_drops_what_it_holds(kernel, recorder, length):
    kernel.send(request(wire.FORGET, bytes(7), NODE | 5))
    data = struct.pack("=IIQQ", 9, 0, NODE | 6, 4)
    kernel.send(request(wire.BATCH_FORGET, data[:length]))
    assert not recorder.forgotten


def test_what_the_kernel_was_not_told_is_taken_back(recorder):
    vfs = Vfs()
    vfs.mount(recorder, "/")
    server = Server(vfs, DeferredReads(vfs))
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    with theirs:  # as when the kernel has given the request up
        server.serve_bytes(request(wire.LOOKUP, b"name\0"), theirs.fileno())
        server.serve_bytes(request(*ROWS["mkdir"][:2]), theirs.fileno())
        server.serve_bytes(request(*ROWS["create"][:2]), theirs.fileno())

    assert recorder.forgotten == {MADE: 3}
    assert recorder.calls[-1] == ("close_file", MADE, 99)


class Keeping(Recorder):
    def write_file(self, ino, handle, offset, data, *more):
        self.kept = data
        return 1 << 40


def test_data_that_is_kept_is_gone_and_counts_are_bounded():
    filesystem = Keeping()
    kernel = Asker(filesystem)
    assert kernel.change(wire.WRITE, write_arg(b"data")) == struct.pack("=II", 4, 0)
    with pytest.raises(ValueError, match="released"):
        bytes(filesystem.kept)
    kernel.close()


class Foolish(Recorder):
    def make_directory(self, *asked):
        return None

    def rename(self, *asked):
        raise KeyError("a mistake in the file system")

    def create_file(self, *asked):
        return 5


@pytest.mark.parametrize("what", ["mkdir", "rename", "create"])
def test_a_mistake_of_a_file_system_is_eio_and_logged(caplog, what):
    kernel = Asker(Foolish())
    with pytest.raises(OSError, match="Input/output error"):
        kernel.change(*ROWS[what][:2])
    assert caplog.records
    kernel.close()


class Odd(Recorder):
    def sync_file(self, *asked):
        raise OSError(1 << 40, "no errno")


def test_a_number_that_is_no_errno_is_eio():
    kernel = Asker(Odd())
    with pytest.raises(OSError, match="Input/output error"):
        kernel.change(*ROWS["fsync"][:2])
    kernel.close()


# What a file system answers that cannot be changed: alone, and beside others.
UNKNOWN = {
    "mknod": (errno.ENOSYS, errno.ENOSYS),
    "mkdir": (errno.ENOSYS, errno.ENOSYS),
    "symlink": (errno.ENOSYS, errno.ENOSYS),
    "unlink": (errno.ENOSYS, errno.ENOSYS),
    "rmdir": (errno.ENOSYS, errno.ENOSYS),
    "rename": (errno.ENOSYS, errno.ENOSYS),
    "setattr": (errno.ENOSYS, errno.ENOSYS),
    "write": (errno.ENOSYS, errno.ENOSYS),
    "flush": (errno.ENOSYS, errno.ENOSYS),
    "link": (errno.ENOSYS, errno.EPERM),
    "create": (errno.ENOSYS, errno.EROFS),
    "rename2": (errno.ENOSYS, errno.EINVAL),
    "setxattr": (errno.ENOSYS, errno.EOPNOTSUPP),
    "removexattr": (errno.ENOSYS, errno.EOPNOTSUPP),
    "fallocate": (errno.ENOSYS, errno.EOPNOTSUPP),
    "copy": (errno.ENOSYS, errno.EOPNOTSUPP),
    "fsync": (errno.ENOSYS, 0),
    "fsyncdir": (errno.ENOSYS, 0),
    "access": (errno.ENOSYS, 0),
}


@pytest.mark.parametrize("made", [Filesystem, PyFilesystem])
@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_changed_says_so_and_never_for_other_mounts(made, what):
    opcode, arg, _ = ROWS[what]
    for is_shared, code in zip([False, True], UNKNOWN[what], strict=True):
        kernel = Asker(made(), zero_message_open=not is_shared)
        kernel.send(request(opcode, arg, NODE | 7))
        assert kernel.receive() == (wire.UNIQUE, -code, b"")
        kernel.close()


@pytest.mark.parametrize(
    ("offset", "whence", "expected"),
    [
        (0, os.SEEK_DATA, 0),
        (9, os.SEEK_DATA, 9),
        (9, os.SEEK_HOLE, 10),
        (10, os.SEEK_DATA, -errno.ENXIO),
        (2**64 - 1, os.SEEK_HOLE, -errno.ENXIO),
        (0, 77, -errno.EINVAL),
    ],
)
def test_a_file_whose_holes_nobody_knows_is_all_data(offset, whence, expected):
    kernel = Asker(MemoryFs({b"f": b"0123456789"}))
    kernel.send(request(wire.LSEEK, struct.pack("=QQII", 0, offset, whence, 0), NODE | 2))
    _, error, data = kernel.receive()
    assert (error or struct.unpack("=Q", data)[0]) == expected
    kernel.close()


OPCODES = sorted({row[0] for row in ROWS.values()} | {wire.FORGET, wire.BATCH_FORGET})


@given(opcode=st.sampled_from(OPCODES), node=st.integers(0, 2**64 - 1), arg=st.binary(max_size=200))
@settings(max_examples=300)
def test_no_bytes_harm_a_file_system_that_can_be_changed(opcode, node, arg):
    kernel = Asker(Recorder())
    kernel.send(request(opcode, arg, node))
    kernel.send(request(opcode, arg, NODE | 7))
    if opcode not in (wire.FORGET, wire.BATCH_FORGET):
        assert kernel.receive()[0] == kernel.receive()[0] == wire.UNIQUE
    assert not kernel.has_reply()
    kernel.close()
