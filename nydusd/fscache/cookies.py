"""Where the kernel keeps the cache file of a blob, below the cache directory.

`cache/Ierofs,VOLUME/@HH/DCOOKIE`, HH a hash of both keys (Linux: fs/cachefiles/key.c and
fs/fscache/main.c, `fscache_hash`). Keys of printable characters stand in names as they are; blob
ids are.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nydusd.fscache.messages import VOLUME_PREFIX

WORD: Final = 0xFFFF_FFFF
GOLDEN_RATIO: Final = 0x61C8_8647  # of the kernel's 32-bit hashes


def cache_files(folder: Path, cookie: str) -> Iterator[tuple[Path, str]]:
    """Directory and name of every cache file of *cookie* below *folder*, in whatever volume."""
    volumes = folder / "cache"
    if not volumes.is_dir():
        return
    for volume in volumes.iterdir():
        if not volume.name.startswith(f"I{VOLUME_PREFIX}"):
            continue
        inner = volume / fan_out(volume.name[1:], cookie)
        if (inner / f"D{cookie}").is_file():
            yield inner, f"D{cookie}"


def fan_out(volume: str, cookie: str) -> str:
    """The directory below that of *volume* where *cookie* lies."""
    key = volume.encode()
    salt = fscache_hash(0, bytes([len(key) & 0xFF]) + key + b"\0")
    return f"@{fscache_hash(salt, cookie.encode()) & 0xFF:02x}"


def fscache_hash(salt: int, data: bytes) -> int:
    """The kernel's hash of *data*, which counts as filled up with zeros to whole words."""
    data += bytes(-len(data) % 4)
    x, y = 0, salt
    for (word,) in struct.iter_unpack("<I", data):
        x ^= word
        y ^= x
        x = (_rotated(x, 7) + y) & WORD
        y = (_rotated(y, 20) * 9) & WORD
    return _multiplied(y ^ _multiplied(x))


def _rotated(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & WORD


def _multiplied(word: int) -> int:
    return word * GOLDEN_RATIO & WORD
