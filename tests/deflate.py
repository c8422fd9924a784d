"""Gzip files taken apart in plain Python: an oracle for `codec.zran`, and what makes test images.

Slow and short: for files of some KiB. Formats: RFC 1951, RFC 1952.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from itertools import accumulate

WINDOW = 1 << 15
LENGTH_EXTRA = [0] * 8 + [n for n in range(1, 6) for _ in range(4)] + [0]
DISTANCE_EXTRA = [0, 0] + [n for n in range(14) for _ in range(2)]
LENGTH_BASE = [*accumulate([3, *(1 << n for n in LENGTH_EXTRA[:27])]), 258]
DISTANCE_BASE = list(accumulate([1, *(1 << n for n in DISTANCE_EXTRA[:29])]))
CODE_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15]


@dataclass(frozen=True)
class Point:
    """Where a deflate block begins: a place to enter the stream."""

    in_offset: int  # of the first whole byte of the block
    lead_bits: int  # high bits of the byte before that belong to it
    lead_byte: int
    out_offset: int  # in the plain bytes of the file
    dictionary: bytes  # the plain bytes of the member before it, at most 32 KiB
    starts_member: bool


class Bits:
    """The bits of *data*, low ones first."""

    def __init__(self, data: bytes, byte: int) -> None:
        self.data = data
        self.at = byte * 8

    def take(self, count: int) -> int:
        value = 0
        for n in range(count):
            value |= (self.data[self.at >> 3] >> (self.at & 7) & 1) << n
            self.at += 1
        return value

    def symbol(self, code: dict[tuple[int, int], int]) -> int:
        value = length = 0
        while (length, value) not in code:
            value = value << 1 | self.take(1)
            length += 1
            if length > 15:
                raise ValueError("no such code")
        return code[length, value]

    def to_byte(self) -> int:
        self.at = (self.at + 7) & ~7
        return self.at >> 3


def huffman(lengths: list[int]) -> dict[tuple[int, int], int]:
    """Symbol by code length and code."""
    code = {}
    value = 0
    for length in range(1, 16):
        for symbol, own in enumerate(lengths):
            if own == length:
                code[length, value] = symbol
                value += 1
        value <<= 1
    return code


FIXED = (
    huffman([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8),
    huffman([5] * 30),
)


def dynamic_codes(bits: Bits) -> tuple[dict[tuple[int, int], int], dict[tuple[int, int], int]]:
    literals, distances, codes = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
    lengths = [0] * 19
    for symbol in CODE_ORDER[:codes]:
        lengths[symbol] = bits.take(3)
    code = huffman(lengths)
    found: list[int] = []
    while len(found) < literals + distances:
        symbol = bits.symbol(code)
        if symbol < 16:
            found.append(symbol)
        elif symbol == 16:
            found += [found[-1]] * (bits.take(2) + 3)
        else:
            found += [0] * (bits.take(3) + 3 if symbol == 17 else bits.take(7) + 11)
    return huffman(found[:literals]), huffman(found[literals:])


def inflate_block(bits: Bits, out: bytearray) -> bool:
    """Append one block's plain bytes; whether it was the last of its member."""
    last, kind = bits.take(1), bits.take(2)
    if kind == 0:
        at = bits.to_byte()
        size = int.from_bytes(bits.data[at : at + 2], "little")
        out += bits.data[at + 4 : at + 4 + size]
        bits.at = (at + 4 + size) * 8
        return bool(last)
    literals, distances = FIXED if kind == 1 else dynamic_codes(bits)
    while (symbol := bits.symbol(literals)) != 256:
        if symbol < 256:
            out.append(symbol)
            continue
        length = LENGTH_BASE[symbol - 257] + bits.take(LENGTH_EXTRA[symbol - 257])
        code = bits.symbol(distances)
        distance = DISTANCE_BASE[code] + bits.take(DISTANCE_EXTRA[code])
        for _ in range(length):
            out.append(out[-distance])
    return bool(last)


def header_size(data: bytes, at: int) -> int:
    """Bytes of the member header at *at*."""
    flags = data[at + 3]
    end = at + 10
    if flags & 4:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for flag in (8, 16):
        if flags & flag:
            end = data.index(b"\0", end) + 1
    return end + (2 if flags & 2 else 0) - at


def points(data: bytes) -> list[Point]:
    """Each block of the gzip file *data*; checked against the standard library's reading."""
    found = []
    out = bytearray()
    at = 0
    while at < len(data):
        member_start = len(out)
        bits = Bits(data, at + header_size(data, at))
        last = False
        while not last:
            used = bits.at & 7
            whole = (bits.at + 7) >> 3
            found.append(
                Point(
                    whole,
                    (8 - used) % 8,
                    data[whole - 1] if used else 0,
                    len(out),
                    bytes(out[max(member_start, len(out) - WINDOW) :]),
                    len(out) == member_start,
                )
            )
            last = inflate_block(bits, out)
        at = bits.to_byte() + 8
    assert out == gzip.decompress(data)
    return found
