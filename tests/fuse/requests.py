"""Speaks the kernel's side of the FUSE protocol to a server, over a socket."""

from __future__ import annotations

import os
import select
import socket
import struct

LOOKUP, FORGET, GETATTR, SETATTR, READLINK, SYMLINK, MKNOD, MKDIR = 1, 2, 3, 4, 5, 6, 8, 9
UNLINK, RMDIR, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE = 10, 11, 12, 13, 14, 15, 16, 17, 18
FSYNC, SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR, FLUSH, INIT = 20, 21, 22, 23, 24, 25, 26
OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, ACCESS, CREATE, INTERRUPT = 27, 28, 29, 30, 34, 35, 36
DESTROY, IOCTL, POLL, NOTIFY_REPLY, BATCH_FORGET, FALLOCATE = 38, 39, 40, 41, 42, 43
READDIRPLUS, RENAME2, LSEEK, COPY_FILE_RANGE = 44, 45, 46, 47
ROOT_NODE = 1
UNIQUE = 4242


def request(opcode: int, arg: bytes = b"", node: int = ROOT_NODE, unique: int = UNIQUE) -> bytes:
    return struct.pack("=IIQQIIIHH", 40 + len(arg), opcode, unique, node, 0, 0, 0, 0, 0) + arg


def read_arg(offset: int, size: int, handle: int = 0) -> bytes:
    return struct.pack("=QQIIQII", handle, offset, size, 0, 0, 0, 0)


def init_arg(minor: int = 45, flags: int = 0xFFFFFFFF, flags2: int = 0xFFFFFFFF) -> bytes:
    return struct.pack("=IIIII44x", 7, minor, 131072, flags, flags2)


class Kernel:
    """Sends requests to *server* and takes its replies apart."""

    def __init__(self, server):
        self.server = server
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(30)

    def close(self):
        self.ours.close()
        self.theirs.close()

    def send(self, message: bytes) -> None:
        self.server.serve_bytes(message, self.theirs.fileno())

    def receive(self) -> tuple[int, int, bytes]:
        """(unique, error, data) of the next reply."""
        message = self.ours.recv(1 << 21)
        length, error, unique = struct.unpack_from("=IiQ", message)
        assert length == len(message)
        return unique, error, message[16:]

    def has_reply(self) -> bool:
        return bool(select.select([self.ours], [], [], 0)[0])

    def ask(self, opcode: int, arg: bytes = b"", node: int = ROOT_NODE) -> bytes:
        """The data of the reply; `OSError` for an error."""
        self.send(request(opcode, arg, node))
        unique, error, data = self.receive()
        assert unique == UNIQUE
        if error:
            raise OSError(-error, os.strerror(-error))
        return data


def attr_of(data: bytes) -> dict[str, int]:
    """A `fuse_attr`, by name."""
    names = "ino size blocks atime mtime ctime atime_nsec mtime_nsec ctime_nsec mode nlink uid gid "
    names += "rdev blksize flags"
    return dict(zip(names.split(), struct.unpack_from("=6Q10I", data), strict=True))


def entry_of(data: bytes) -> tuple[int, int, dict[str, int]]:
    """(node id, seconds the name is valid, attributes) of a `fuse_entry_out`."""
    node, _, valid = struct.unpack_from("=3Q", data)
    return node, valid, attr_of(data[40:])


def names_of(data: bytes, plus: bool = False) -> list[tuple[bytes, int, int, int]]:
    """(name, ino, next offset, kind) of each dirent."""
    found = []
    while data:
        skip = 128 if plus else 0
        ino, offset, length, kind = struct.unpack_from("=QQII", data, skip)
        found.append((data[skip + 24 : skip + 24 + length], ino, offset, kind))
        data = data[skip + (24 + length + 7 & ~7) :]
    return found
