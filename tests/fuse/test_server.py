"""Request bytes become answers; bytes that are no request become errors."""

from __future__ import annotations

import errno
import stat
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nydusd.fs.vfs import Vfs
from nydusd.fuse.deferred import DeferredReads
from nydusd.fuse.server import Server
from tests.fs.memory import MemoryFs
from tests.fuse import requests as wire
from tests.fuse.requests import Kernel, request

NODE = 1 << 56
FOR_EVER = 1 << 32


def serving(files: dict[bytes, bytes], **options):
    vfs = Vfs()
    vfs.mount(MemoryFs(files), "/")
    deferred = DeferredReads(vfs)
    return Server(vfs, deferred, **options), deferred


@pytest.fixture(scope="module")
def kernel():
    server, deferred = serving({b"hello": b"0123456789", b"empty": b""})
    deferred.start()
    kernel = Kernel(server)
    yield kernel
    deferred.stop(-errno.EIO)
    kernel.close()


def refused(code: int):
    return pytest.raises(OSError, match=rf"\[Errno {code}\]")


def test_a_lookup_gives_node_attributes_and_how_long_they_hold(kernel):
    node, valid, attr = wire.entry_of(kernel.ask(wire.LOOKUP, b"hello\0"))

    assert (node, valid) == (NODE | 2, FOR_EVER)
    assert (attr["ino"], attr["size"], attr["mode"]) == (node, 10, stat.S_IFREG | 0o644)
    assert attr["blksize"] == 4096


def test_a_name_that_is_not_there_is_enoent(kernel):
    with refused(errno.ENOENT):
        kernel.ask(wire.LOOKUP, b"nothing\0")


def test_node_1_is_the_root_of_the_image_with_the_ino_of_its_slot(kernel):
    attr = wire.attr_of(kernel.ask(wire.GETATTR, bytes(16))[16:])

    assert attr["ino"] == NODE | 1
    assert (attr["mtime"], attr["mtime_nsec"]) == (12, 500_000_000)


def test_a_node_of_a_slot_without_mount_is_enoent(kernel):
    with refused(errno.ENOENT):
        kernel.ask(wire.GETATTR, bytes(16), node=9 << 56 | 1)


@pytest.mark.parametrize("plus", [False, True])
def test_a_listing_goes_on_where_it_stopped(kernel, plus):
    opcode = wire.READDIRPLUS if plus else wire.READDIR
    room = 160 if plus else 32
    first = wire.names_of(kernel.ask(opcode, wire.read_arg(0, room)), plus)
    second = wire.names_of(kernel.ask(opcode, wire.read_arg(first[0][2], room)), plus)

    assert first == [(b"hello", NODE | 2, 1, 8)]
    assert second == [(b"empty", NODE | 3, 2, 8)]
    assert kernel.ask(opcode, wire.read_arg(2, room)) == b""


def test_a_listing_without_room_for_an_entry_is_empty(kernel):
    assert kernel.ask(wire.READDIR, wire.read_arg(0, 31)) == b""


@pytest.mark.parametrize(
    ("offset", "size", "expected"), [(0, 10, b"0123456789"), (8, 4096, b"89"), (10, 1, b"")]
)
def test_a_read_gives_the_bytes_that_are_there(kernel, offset, size, expected):
    assert kernel.ask(wire.READ, wire.read_arg(offset, size), node=NODE | 2) == expected


def test_a_read_of_more_than_the_mounts_max_read_is_refused(kernel):
    with refused(errno.E2BIG):
        kernel.ask(wire.READ, wire.read_arg(0, (1 << 20) + 4097), node=NODE | 2)


def test_a_link_is_read_without_nul(kernel):
    assert kernel.ask(wire.READLINK, node=NODE | 2) == b"target"


def test_the_length_of_an_attribute_is_exact(kernel):
    arg = struct.pack("=II", 0, 0) + b"user.key\0"
    assert struct.unpack("=II", kernel.ask(wire.GETXATTR, arg)) == (5, 0)
    assert kernel.ask(wire.GETXATTR, struct.pack("=II", 5, 0) + b"user.key\0") == b"value"


def test_an_attribute_that_does_not_fit_is_erange(kernel):
    with refused(errno.ERANGE):
        kernel.ask(wire.GETXATTR, struct.pack("=II", 4, 0) + b"user.key\0")


def test_attribute_names_are_listed_with_nuls(kernel):
    names = kernel.ask(wire.LISTXATTR, struct.pack("=II", 100, 0))
    assert names == b"user.key\0user.other\0"


def test_statfs_shows_the_number_of_inodes(kernel):
    fields = struct.unpack("=5Q4I24x", kernel.ask(wire.STATFS))
    assert fields == (0, 0, 0, 3, 0, 512, 255, 0, 0)


def test_open_and_release_reach_a_file_system_that_keeps_handles(kernel):
    handle, flags, _ = struct.unpack("=QIi", kernel.ask(wire.OPEN, bytes(8), node=NODE | 2))
    assert (handle, flags) == (20, 0)
    assert kernel.ask(wire.RELEASE, struct.pack("=QIIQ", handle, 0, 0, 0), node=NODE | 2) == b""


@pytest.mark.parametrize("opcode", [wire.POLL, 52, 9999])
def test_what_no_file_system_needs_is_enosys(kernel, opcode):
    with refused(errno.ENOSYS):
        kernel.ask(opcode, bytes(64))


def test_an_ioctl_is_enotty(kernel):
    with refused(errno.ENOTTY):
        kernel.ask(wire.IOCTL, bytes(32))


@pytest.mark.parametrize(
    "opcode", [wire.FORGET, wire.BATCH_FORGET, wire.INTERRUPT, wire.NOTIFY_REPLY]
)
def test_what_wants_no_answer_gets_none(kernel, opcode):
    kernel.send(request(opcode, bytes(16)))
    assert not kernel.has_reply()


@pytest.mark.parametrize(
    ("opcode", "arg"),
    [
        (wire.LOOKUP, b"hello"),
        (wire.GETATTR, bytes(15)),
        (wire.OPEN, bytes(7)),
        (wire.OPENDIR, bytes(7)),
        (wire.READ, bytes(39)),
        (wire.READDIR, bytes(39)),
        (wire.READDIRPLUS, bytes(39)),
        (wire.RELEASE, bytes(23)),
        (wire.RELEASEDIR, bytes(23)),
        (wire.GETXATTR, bytes(7)),
        (wire.GETXATTR, bytes(8) + b"user.key"),
        (wire.LISTXATTR, bytes(7)),
        (wire.INIT, bytes(15)),
    ],
)
def test_a_request_that_is_cut_is_refused(kernel, opcode, arg):
    with refused(errno.EINVAL):
        kernel.ask(opcode, arg)


def test_a_header_whose_length_is_not_the_messages_is_refused(kernel):
    kernel.send(request(wire.STATFS) + b"more")
    assert kernel.receive() == (wire.UNIQUE, -errno.EINVAL, b"")


def test_extensions_longer_than_the_request_are_refused(kernel):
    message = struct.pack("=IIQQIIIHH", 40, wire.STATFS, wire.UNIQUE, 1, 0, 0, 0, 1, 0)
    kernel.send(message)
    assert kernel.receive() == (wire.UNIQUE, -errno.EINVAL, b"")


def test_less_than_a_header_gets_no_answer(kernel):
    kernel.send(bytes(39))
    kernel.send(b"")
    assert not kernel.has_reply()


@given(opcode=st.integers(0, 60), node=st.integers(0, 2**64 - 1), arg=st.binary(max_size=200))
@settings(max_examples=400)
def test_no_request_harms_the_server(opcode, node, arg):
    server, deferred = serving({b"hello": b"0123456789"})
    kernel = Kernel(server)
    try:
        kernel.send(request(opcode, arg, node))
        silent = opcode in (wire.FORGET, wire.BATCH_FORGET, wire.INTERRUPT, wire.NOTIFY_REPLY)
        if not silent and not deferred.waiting:
            assert kernel.receive()[0] == wire.UNIQUE
        assert not kernel.has_reply()
    finally:
        deferred.stop(-errno.EIO)
        kernel.close()


class TestInit:
    """The negotiation."""

    def init(self, arg: bytes, **options) -> tuple[Server, bytes]:
        server, _ = serving({}, **options)
        kernel = Kernel(server)
        try:
            return server, kernel.ask(wire.INIT, arg)
        finally:
            kernel.close()

    def test_the_lower_of_both_versions_is_used(self):
        for offered, agreed in ((45, 45), (31, 31), (99, 45)):
            _, reply = self.init(wire.init_arg(minor=offered))
            assert struct.unpack_from("=II", reply) == (7, agreed)
            assert len(reply) == 64

    def test_the_limits_are_the_references(self):
        _, reply = self.init(wire.init_arg())
        assert struct.unpack_from("=I4xHHIIH", reply, 8) == (131072, 65535, 49149, 1 << 20, 1, 256)

    def test_only_what_was_offered_is_accepted(self):
        server, reply = self.init(wire.init_arg(flags=1 << 13 | 1 << 22))
        assert struct.unpack_from("=I", reply, 12) == (1 << 13 | 1 << 22,)
        assert server.negotiation == (45, 1 << 13 | 1 << 22, 1 << 13 | 1 << 22)

    @pytest.mark.parametrize("zero_message_open", [False, True])
    def test_opens_are_given_up_only_when_asked_for(self, zero_message_open):
        _, reply = self.init(wire.init_arg(), zero_message_open=zero_message_open)
        flags = struct.unpack_from("=I", reply, 12)[0]
        assert bool(flags & 1 << 17) == bool(flags & 1 << 24) == zero_message_open

    @pytest.mark.parametrize(("minor", "size"), [(4, 8), (22, 24), (23, 64)])
    def test_an_old_kernel_gets_the_reply_it_knows(self, minor, size):
        arg = struct.pack("=IIII", 7, minor, 0, 0)
        assert len(self.init(arg)[1]) == size

    def test_an_older_protocol_is_refused(self):
        with refused(errno.EPROTO):
            self.init(struct.pack("=IIII", 6, 0, 0, 0))

    def test_a_newer_protocol_is_told_ours_and_asks_again(self):
        server, reply = self.init(struct.pack("=IIII", 8, 0, 0, 0))
        assert struct.unpack("=II", reply) == (7, 45)
        assert server.negotiation is None
