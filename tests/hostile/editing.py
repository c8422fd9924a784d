"""A golden image opened for editing: fields by name, inodes by path."""

from __future__ import annotations

import struct

from nydusd.rafs.load import bootstrap_of_bytes
from tests.hostile.structures import (
    COMPACT_V6,
    EXTENDED_INODE_V6,
    INODE_V5,
    Layout,
    map_v5,
    map_v6,
    offsets_v5,
    up8,
)
from tests.system.images import Image


class Edit:
    """The bootstrap of *image* as *raw* bytes; a recipe changes them."""

    def __init__(self, image: Image) -> None:
        self.image = image
        data = image.bootstrap.read_bytes()
        self.raw = bytearray(data)
        self.bootstrap = bootstrap_of_bytes(data, "f")
        self.version = self.bootstrap.version
        if self.version == 5:
            self.known = map_v5(data)
            self.records = offsets_v5(data)
        else:
            self.known = map_v6(data, [self.bootstrap.root_ino])
        self.fields = {field.name: field for field in self.known.fields}

    def set(self, name: str, value: int | bytes) -> None:
        """The field *name* of a superblock or a table."""
        _, offset, size = self.fields[name]
        self._store(offset, size, value)

    def get(self, name: str) -> int:
        _, offset, size = self.fields[name]
        return int.from_bytes(self.raw[offset : offset + size], "little")

    def _store(self, offset: int, size: int, value: int | bytes) -> None:
        if isinstance(value, int):
            value = (value & ((1 << 8 * size) - 1)).to_bytes(size, "little")
        self.raw[offset : offset + len(value)] = value

    # inodes

    def number(self, path: str) -> int:
        return self.bootstrap.find(path.encode())

    def inode(self, path: str) -> int:
        """Where the inode of *path* is."""
        ino = self.number(path)
        if self.version == 5:
            return self.records[ino - 1]
        bits = self.raw[1024 + 12]
        meta = struct.unpack_from("<I", self.raw, 1024 + 40)[0]
        return (meta << bits) + 32 * ino

    def _layout(self, at: int) -> Layout:
        if self.version == 5:
            return INODE_V5
        return EXTENDED_INODE_V6 if self.raw[at] & 1 else COMPACT_V6

    def put(self, path: str, **values: int | bytes) -> None:
        """Fields of the inode of *path*."""
        at = self.inode(path)
        for name, value in values.items():
            offset, size = {n: (o, s) for n, o, s in self._layout(at)}[name]
            self._store(at + offset, size, value)

    def read(self, path: str, name: str) -> int:
        at = self.inode(path)
        offset, size = {n: (o, s) for n, o, s in self._layout(at)}[name]
        return int.from_bytes(self.raw[at + offset : at + offset + size], "little")

    def name_v5(self, path: str) -> int:
        """v5: where the name of *path* is."""
        return self.inode(path) + 128

    def behind(self, path: str) -> int:
        """Where the attributes are: behind the inode (v6), or the name and target (v5)."""
        at = self.inode(path)
        if self.version == 6:
            return at + (64 if self.raw[at] & 1 else 32)
        name_size, target_size = struct.unpack_from("<HH", self.raw, at + 100)
        return at + 128 + up8(name_size) + up8(target_size)

    def target(self, path: str) -> int:
        """Where the target of a symlink is; inline in v6."""
        if self.version == 6:
            return self._behind_xattrs_v6(path)
        return self.behind(path) - up8(self.read(path, "symlink_size"))

    def _behind_xattrs_v6(self, path: str) -> int:
        count = self.read(path, "xattr_count")
        return self.behind(path) + (12 + 4 * (count - 1) if count else 0)

    def chunk(self, path: str, number: int = 0) -> int:
        """Where the record (v5) or index (v6) of a file's chunk is."""
        if self.version == 6:
            tail = self._behind_xattrs_v6(path)
            at = self.inode(path)
            return at + up8(tail - at) + 8 * number
        at = self.behind(path)
        if self.read(path, "flags") & 4:
            at += 8 + up8(struct.unpack_from("<Q", self.raw, at)[0])
        return at + 80 * number

    def entry(self, path: str) -> int:
        """v6: where the directory entry of *path* is."""
        parent, _, name = path.rpartition("/")
        at = self.inode(parent or "/")
        size = struct.unpack_from("<Q" if self.raw[at] & 1 else "<I", self.raw, at + 8)[0]
        content = struct.unpack_from("<I", self.raw, at + 16)[0]
        inline = struct.unpack_from("<H", self.raw, at)[0] >> 1 == 2
        for block in range(-(-size // 4096)):
            start = (content + block) * 4096
            if inline and (block + 1) * 4096 > size:
                start = self._behind_xattrs_v6(parent or "/")
            found = self._entry_in(start, min(4096, size - block * 4096), name.encode())
            if found is not None:
                return found
        raise KeyError(path)

    def _entry_in(self, start: int, size: int, name: bytes) -> int | None:
        count = struct.unpack_from("<H", self.raw, start + 8)[0] // 12
        for index in range(count):
            begin = struct.unpack_from("<H", self.raw, start + 12 * index + 8)[0]
            end = size
            if index + 1 < count:
                end = struct.unpack_from("<H", self.raw, start + 12 * index + 20)[0]
            if bytes(self.raw[start + begin : start + end]).rstrip(b"\0") == name:
                return start + 12 * index
        return None

    def entry_name(self, path: str) -> int:
        """v6: where the name of an entry is; names of the first block of their directory only."""
        name = path.rpartition("/")[2]
        at = self.entry(path)
        return self.raw.index(name.encode(), at, at + 4096)

    def pack(self, offset: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.raw, offset, *values)
