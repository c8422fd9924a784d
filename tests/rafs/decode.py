"""What a bootstrap says, decoded with `struct` alone: the second opinion on both readers."""

from __future__ import annotations

import stat
import struct
from typing import NamedTuple

from nydusd.rafs.bootstrap import Bootstrap


class Node(NamedTuple):
    """One name of an image."""

    ino: int
    mode: int
    uid: int
    gid: int
    nlink: int
    size: int
    mtime: tuple[int, int]
    rdev: int
    target: bytes
    xattrs: dict[bytes, bytes]
    chunks: list[tuple[int, int, int]]  # blob index, number, offset in the plain blob


def u16(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 2], "little")


def u32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def u64(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 8], "little")


def up8(size: int) -> int:
    return (size + 7) // 8 * 8


def decode(data: bytes) -> dict[bytes, Node]:
    """Path to node, for every name of a bootstrap of either version."""
    return decode_v5(data) if data.startswith(b"SFAR") else decode_v6(data)


def decode_v5(data: bytes) -> dict[bytes, Node]:
    table = u64(data, 32)
    found: dict[bytes, Node] = {}

    def visit(path: bytes, index: int) -> None:
        at = u32(data, table + 4 * (index - 1)) << 3
        (_parent, ino, uid, gid, _, mode, size, _, flags, nlink, first, count) = struct.unpack_from(
            "<QQIIIIQQQIII", data, at + 32
        )
        name_size, target_size, rdev, nsec, mtime = struct.unpack_from("<HHIIq", data, at + 100)
        cursor = at + 128 + up8(name_size)
        target = data[cursor : cursor + target_size]
        cursor += up8(target_size)
        xattrs = {}
        if flags & 4:
            end = cursor + 8 + u64(data, cursor)
            pair = cursor + 8
            while pair < end:
                name, value = data[pair + 4 : pair + 4 + u32(data, pair)].split(b"\0", 1)
                xattrs[name] = value
                pair += 4 + u32(data, pair)
            cursor = cursor + 8 + up8(u64(data, cursor))
        chunks = []
        if stat.S_ISREG(mode):
            for number in range(count):
                chunk = cursor + 80 * number
                chunks.append((u32(data, chunk + 32), u32(data, chunk + 72), u64(data, chunk + 56)))
        found[path or b"/"] = Node(
            *(ino, mode, uid, gid, nlink, size, (mtime, nsec)),
            *(rdev if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else 0, target, xattrs, chunks),
        )
        if stat.S_ISDIR(mode):
            for child in range(first, first + count):
                start = u32(data, table + 4 * (child - 1)) << 3
                visit(path + b"/" + data[start + 128 : start + 128 + u16(data, start + 100)], child)

    visit(b"", 1)
    return found


PREFIXES = {
    1: b"user.",
    2: b"system.posix_acl_access",
    3: b"system.posix_acl_default",
    4: b"trusted.",
    6: b"security.",
}


def decode_v6(data: bytes) -> dict[bytes, Node]:
    bits = data[1024 + 12]
    block = 1 << bits
    meta = u32(data, 1024 + 40) << bits
    chunk_size = u32(data, 1152 + 20)
    found: dict[bytes, Node] = {}

    def visit(path: bytes, nid: int) -> None:
        at = meta + 32 * nid
        layout = u16(data, at) >> 1 & 7
        assert u16(data, at) & 1, "the reference writes extended inodes only"
        mode, size, content = u16(data, at + 4), u64(data, at + 8), u32(data, at + 16)
        uid, gid, seconds, nsec, nlink = struct.unpack_from("<IIqII", data, at + 24)
        area_size = 12 + 4 * (u16(data, at + 2) - 1) if u16(data, at + 2) else 0
        xattrs = xattrs_of(data[at + 64 : at + 64 + area_size])
        behind = at + 64 + area_size
        body = b""
        if layout in (0, 2):
            whole = size if layout == 0 else size - size % block
            body = data[content * block : content * block + whole]
            body += data[behind : behind + size - whole]
        chunks = []
        if stat.S_ISREG(mode):
            first = at + up8(behind - at)
            for number in range(-(-size // chunk_size)):
                low, device, address = struct.unpack_from("<HHI", data, first + 8 * number)
                chunks.append(((device & 255) - 1, device >> 8 << 16 | low, address << bits))
        device = stat.S_ISCHR(mode) or stat.S_ISBLK(mode)
        found[path or b"/"] = Node(
            *(nid, mode, uid, gid, nlink, size, (seconds, nsec), content if device else 0),
            *(body if stat.S_ISLNK(mode) else b"", xattrs, chunks),
        )
        if stat.S_ISDIR(mode):
            for start in range(0, size, block):
                for name, child in names_of(body[start : start + block]):
                    if name not in (b".", b".."):
                        visit(path + b"/" + name, child)

    visit(b"", u16(data, 1024 + 14))
    return found


def names_of(block: bytes) -> list[tuple[bytes, int]]:
    count = u16(block, 8) // 12
    offsets = [u16(block, 12 * i + 8) for i in range(count)] + [len(block)]
    return [
        (block[offsets[i] : offsets[i + 1]].split(b"\0", 1)[0], u64(block, 12 * i))
        for i in range(count)
    ]


def xattrs_of(area: bytes) -> dict[bytes, bytes]:
    found = {}
    cursor = 12
    while cursor < len(area):
        name_len, prefix, value_len = struct.unpack_from("<BBH", area, cursor)
        name = area[cursor + 4 : cursor + 4 + name_len]
        value = area[cursor + 4 + name_len : cursor + 4 + name_len + value_len]
        found[PREFIXES[prefix] + name] = value
        cursor += (4 + name_len + value_len + 3) // 4 * 4
    return found


def check_against_decoder(bootstrap: Bootstrap, data: bytes) -> None:
    """Assert that *bootstrap* tells of every name of *data* what `decode` tells."""
    expected = decode(data)

    assert {entry.path: entry.ino for entry in bootstrap.walk()} == {
        name: node.ino for name, node in expected.items()
    }
    for name, node in expected.items():
        found = bootstrap.stat(bootstrap.find(name))
        assert found[0:2] == (node.ino, node.size)
        assert (found.mode, found.uid, found.gid, found.nlink) == node[1:5]
        assert (found.mtime, found.mtime_nsec) == node.mtime
        assert found.rdev == node.rdev
        assert bootstrap.xattrs(node.ino) == node.xattrs
        for attribute, value in node.xattrs.items():
            assert bootstrap.xattr_value(node.ino, attribute) == value
        if node.target:
            assert bootstrap.target(node.ino) == node.target
        if node.mode >> 12 == 8:
            spans = list(bootstrap.chunk_spans(node.ino))
            assert [(s.blob_index, s.chunk_index, s.uncompressed_offset) for s in spans] == (
                node.chunks
            )
            assert sum(span.length for span in spans) == node.size
