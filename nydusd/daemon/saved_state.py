"""The state that a daemon gives its supervisor and a successor starts from, as bytes.

Two forms. The reference's own, so that either program can follow the other (spec of the run time:
state encoding; its mount table is fuse-backend-rs 0.14's): slots are one byte there, strings are
UTF-8 and have at most 16384 bytes. A state that does not fit goes in the wide form, the same
fields with wider numbers under a data version that the reference refuses by name.

Pure functions; nothing of a state is believed before its checksums are right, and after that still
no length. The bytes hold the configurations as they were given: secrets.
"""

import os
import struct
from typing import Final

from nydusd.base.crc64 import crc64
from nydusd.base.errors import NydusError
from nydusd.base.record import NamedTuple

# Bits 16-63 of the number a snapshot begins with; below is the version of the encoding.
MAGIC_OF_MACHINE: Final = {
    "x86_64": 0x0710_1984_8664_0000,
    "aarch64": 0x0710_1984_AAAA_0000,
    "ppc64le": 0x0710_1984_CC64_0000,
    "riscv64": 0x0710_1984_C564_0000,
}
MAGIC: Final = MAGIC_OF_MACHINE.get(os.uname().machine, 0x0710_1984_8664_0000)
ENCODING: Final = 1
HEADER: Final = struct.Struct("<QH")
SUM_BYTES: Final = 8

KIND_RAFS: Final = 0
KIND_PASSTHROUGH: Final = 1

# FUSE_INIT flags that the reference has names for; it refuses a state with others.
KNOWN_FLAGS: Final = 0x1FFF_FFFF | 1 << 30 | 1 << 33 | 1 << 39 | 1 << 63
FLAG_WRITEBACK: Final = 1 << 16
FLAG_NO_OPEN: Final = 1 << 17
FLAG_NO_OPENDIR: Final = 1 << 24
FLAG_KILLPRIV_V2: Final = 1 << 28


class Form(NamedTuple):
    """How wide things are written, and the data version that says so."""

    version: int
    slot: struct.Struct
    last_slot: int
    text_bytes: int


REFERENCE: Final = Form(version=1, slot=struct.Struct("<B"), last_slot=255, text_bytes=16384)
WIDE: Final = Form(version=0x8001, slot=struct.Struct("<H"), last_slot=65535, text_bytes=16 << 20)

U8: Final = struct.Struct("<B")
U32: Final = struct.Struct("<I")
U64: Final = struct.Struct("<Q")
OPTIONS: Final = struct.Struct("<QQ??III????")


class StateError(NydusError):
    """Bytes that are no saved state; *reason* as the reference words it, where it has words."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"saved state: {reason}")
        self.reason = reason


class SavedMount(NamedTuple):
    """One mount: what it was made from, and the slot its node ids carry."""

    mountpoint: str
    kind: int  # KIND_RAFS, KIND_PASSTHROUGH
    source: str
    config_text: str  # as given, with its secrets
    prefetch_files: tuple[str, ...] | None
    slot: int

    def __repr__(self) -> str:
        """Without the configuration."""
        return f"SavedMount({self.mountpoint!r}, slot={self.slot})"


class SavedDirectory(NamedTuple):
    """One pseudo directory."""

    ino: int
    parent: int
    name: bytes


class SavedState(NamedTuple):
    """All that a successor needs beside the /dev/fuse descriptor."""

    mounts: tuple[SavedMount, ...]
    offered: int  # FUSE_INIT flags of the kernel
    accepted: int  # flags agreed on
    directories: tuple[SavedDirectory, ...]
    next_directory: int  # inode
    last_slot: int  # that was given to a mount
    connection: int  # number of the FUSE connection


def encode_state(state: SavedState) -> bytes:
    """*state* as bytes: in the reference's form if it fits, else in the wide one."""
    form = REFERENCE if _fits_reference(state) else WIDE
    mounts = b"".join(_encoded_mount(mount, form) for mount in state.mounts)
    table = _encoded_table(state, form)
    return _snapshot(
        form.version,
        U64.pack(len(state.mounts)) + mounts + _counted(table) + U64.pack(state.connection),
    )


def _fits_reference(state: SavedState) -> bool:
    texts = [
        _encoded_text(text)
        for mount in state.mounts
        for text in (
            mount.mountpoint,
            mount.source,
            mount.config_text,
            *(mount.prefetch_files or ()),
        )
    ]
    texts += [directory.name for directory in state.directories]
    return (
        all(len(text) <= REFERENCE.text_bytes and _is_utf8(text) for text in texts)
        and all(mount.slot <= REFERENCE.last_slot for mount in state.mounts)
        and state.last_slot <= REFERENCE.last_slot
    )


def _is_utf8(text: bytes) -> bool:
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _encoded_text(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _counted(data: bytes) -> bytes:
    return U64.pack(len(data)) + data


def _snapshot(version: int, body: bytes) -> bytes:
    data = HEADER.pack(MAGIC | ENCODING, version) + body
    return data + U64.pack(crc64(data))


def _encoded_mount(mount: SavedMount, form: Form) -> bytes:
    mountpoint = _counted(_encoded_text(mount.mountpoint))
    parts = [
        mountpoint,  # the key of the reference's map, and again inside
        U32.pack(mount.kind),
        _counted(_encoded_text(mount.source)),
        _counted(_encoded_text(mount.config_text)),
        mountpoint,
        U8.pack(mount.prefetch_files is not None),
    ]
    if mount.prefetch_files is not None:
        parts.append(U64.pack(len(mount.prefetch_files)))
        parts += [_counted(_encoded_text(path)) for path in mount.prefetch_files]
    parts.append(form.slot.pack(mount.slot))
    return b"".join(parts)


def _encoded_table(state: SavedState, form: Form) -> bytes:
    """The mount table: options, pseudo directories, and the slot that comes next."""
    directories = b"".join(
        U64.pack(each.ino) + U64.pack(each.parent) + _counted(each.name)
        for each in state.directories
    )
    tree = U64.pack(state.next_directory) + U64.pack(len(state.directories)) + directories
    accepted = state.accepted & KNOWN_FLAGS
    options = OPTIONS.pack(
        state.offered & KNOWN_FLAGS,
        accepted,
        False,  # no_readdir
        False,  # seal_size
        *(0, 0, 0),  # id mapping
        bool(accepted & FLAG_NO_OPEN),
        bool(accepted & FLAG_NO_OPENDIR),
        not accepted & FLAG_WRITEBACK,
        bool(accepted & FLAG_KILLPRIV_V2),
    )
    next_slot = (state.last_slot + 1) % (form.last_slot + 1)  # 0 is skipped when it is used
    return _snapshot(
        form.version,
        options + _counted(_snapshot(form.version, tree)) + form.slot.pack(next_slot),
    )


def decode_state(data: bytes) -> SavedState:
    """What `encode_state` or the reference wrote; `StateError` for anything else."""
    outer = _opened(data, (REFERENCE, WIDE), "state")
    form = outer.form
    mounts = tuple(_decoded_mount(outer) for _ in range(outer.count("mounts")))
    table = _opened(outer.counted("mount table"), (form,), "mount table")
    connection = outer.number(U64, "connection")
    outer.end()
    offered, accepted, *others = table.numbers(OPTIONS, "options")
    if others[0] or others[1] or any(others[2:5]):
        raise StateError("no_readdir, seal_size and id mappings are not in this version")
    tree = _opened(table.counted("pseudo directories"), (form,), "pseudo directories")
    next_slot = table.number(form.slot, "next slot")
    table.end()
    next_directory = tree.number(U64, "next inode")
    directories = tuple(_decoded_directory(tree) for _ in range(tree.count("directories")))
    tree.end()
    if len({mount.slot for mount in mounts}) != len(mounts):
        raise StateError("two mounts have one slot")
    return SavedState(
        mounts,
        offered,
        accepted,
        directories,
        next_directory,
        (next_slot - 1) % (form.last_slot + 1),
        connection,
    )


class _Reader:
    """Takes what a snapshot holds from its front, in the widths of *form*."""

    def __init__(self, data: bytes, form: Form, name: str) -> None:
        self.form = form
        self._data = data
        self._name = name
        self._at = HEADER.size
        self._end = len(data) - SUM_BYTES

    def _take(self, size: int, what: str) -> int:
        """Where the next *size* bytes begin."""
        at = self._at
        if size > self._end - at:
            raise StateError(f"{self._name}: {what} at byte {at} goes beyond the end")
        self._at = at + size
        return at

    def numbers(self, kind: struct.Struct, what: str) -> tuple[int, ...]:
        for_struct: tuple[int, ...] = kind.unpack_from(self._data, self._take(kind.size, what))
        return for_struct

    def number(self, kind: struct.Struct, what: str) -> int:
        return self.numbers(kind, what)[0]

    def count(self, what: str) -> int:
        """How many things follow, of which each takes at least one byte."""
        count = self.number(U64, what)
        if count > self._end - self._at:
            raise StateError(f"{self._name}: {count} {what} in {self._end - self._at} bytes")
        return count

    def flag(self, what: str) -> bool:
        value = self.number(U8, what)
        if value > 1:
            raise StateError(f"{self._name}: {what}: Invalid option value {value}")
        return bool(value)

    def counted(self, what: str) -> bytes:
        size = self.number(U64, what)
        at = self._take(size, what)
        return self._data[at : at + size]

    def name_bytes(self, what: str) -> bytes:
        data = self.counted(what)
        if len(data) > self.form.text_bytes:
            raise StateError(f"{self._name}: {what} has {len(data)} bytes")
        return data

    def text(self, what: str) -> str:
        data = self.name_bytes(what)
        if b"\0" in data:
            raise StateError(f"{self._name}: {what} has a NUL in it")
        return data.decode("utf-8", "surrogateescape")

    def end(self) -> None:
        if self._at != self._end:
            raise StateError(f"{self._name}: {self._end - self._at} bytes too many")


def _opened(data: bytes, forms: tuple[Form, ...], name: str) -> _Reader:
    """A reader of the snapshot *data* after its checksum, magic and version have been checked."""
    if len(data) < SUM_BYTES:
        raise StateError("InvalidSnapshotSize")
    body = memoryview(data)[:-SUM_BYTES]
    found = crc64(body)
    if found != U64.unpack_from(data, len(body))[0]:
        raise StateError(f"Crc64({found})")
    if len(body) < HEADER.size:
        raise StateError(f"{name}: {len(data)} bytes are no snapshot")
    magic, version = HEADER.unpack_from(data)
    if magic & ~0xFFFF != MAGIC:
        raise StateError(f"InvalidMagic({magic})")
    if magic & 0xFFFF != ENCODING:
        raise StateError(f"InvalidFormatVersion({magic & 0xFFFF})")
    for form in forms:
        if form.version == version:
            return _Reader(data, form, name)
    raise StateError(f"InvalidDataVersion({version})")


def _decoded_mount(reader: _Reader) -> SavedMount:
    mountpoint = reader.text("mount point")
    kind = reader.number(U32, "file system type")
    if kind not in (KIND_RAFS, KIND_PASSTHROUGH):
        raise StateError(f"mount point {mountpoint!a}: file system type {kind}")
    source = reader.text("source")
    config_text = reader.text("configuration")
    if reader.text("mount point") != mountpoint:
        raise StateError(f"mount point {mountpoint!a}: written differently the second time")
    prefetch_files = None
    if reader.flag("prefetch list"):
        prefetch_files = tuple(reader.text("path") for _ in range(reader.count("paths")))
    slot = reader.number(reader.form.slot, "slot")
    if slot == 0:
        raise StateError(f"mount point {mountpoint!a}: slot 0")
    return SavedMount(mountpoint, kind, source, config_text, prefetch_files, slot)


def _decoded_directory(reader: _Reader) -> SavedDirectory:
    ino, parent = reader.number(U64, "inode"), reader.number(U64, "parent")
    return SavedDirectory(ino, parent, reader.name_bytes("name"))
