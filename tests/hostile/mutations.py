"""What is done to a good file to make a hostile one: 1 to 4 changes that know its structure.

Everything follows from the given random numbers, so a seed and a number give an input again.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from tests.hostile.structures import Field, Map

MOST_MUTATIONS = 4
SIZE_MAX = 1 << 20  # of a mutant


def get(raw: bytearray, field: Field) -> int:
    return int.from_bytes(raw[field.offset : field.offset + field.size], "little")


def put(raw: bytearray, field: Field, value: int) -> None:
    size = min(field.size, 8)
    if field.offset + size <= len(raw):
        masked = value & ((1 << 8 * size) - 1)
        raw[field.offset : field.offset + size] = masked.to_bytes(size, "little")


def boundary(raw: bytearray, known: Map, field: Field, rng: Random) -> int:
    """A value at which a check may be off by one, or that means another place of the file."""
    bits = 8 * min(field.size, 8)
    now = get(raw, field)
    place = rng.choice(known.places) if known.places else 0
    return rng.choice(
        [
            0,
            1,
            2,
            (1 << bits) - 1,
            (1 << bits) - 2,
            1 << (bits - 1),
            (1 << (bits - 1)) - 1,
            now + 1,
            now - 1,
            now * 2,
            now // 2,
            now ^ (1 << rng.randrange(bits)),
            now + (1 << rng.randrange(bits)),
            len(raw),
            len(raw) - 1,
            len(raw) + 1,
            len(raw) - now,
            len(raw) >> 3,
            len(raw) >> 12,
            place,
            place >> 3,
            place >> 5,
            place >> 12,
            255,
            256,
            4096,
            4095,
            0x1000000,
            rng.getrandbits(bits),
        ]
    )


def set_field(raw: bytearray, known: Map, rng: Random) -> None:
    field = rng.choice(known.fields)
    put(raw, field, boundary(raw, known, field, rng))


def copy_field(raw: bytearray, known: Map, rng: Random) -> None:
    """A field with another one's value: cross-links, repeated names, the same place twice."""
    source = rng.choice(known.fields)
    same = [field for field in known.fields if field.size == source.size]
    put(raw, rng.choice(same), get(raw, source))


def swap_fields(raw: bytearray, known: Map, rng: Random) -> None:
    first = rng.choice(known.fields)
    second = rng.choice([field for field in known.fields if field.size == first.size])
    one, two = get(raw, first), get(raw, second)
    put(raw, first, two)
    put(raw, second, one)


def copy_record(raw: bytearray, known: Map, rng: Random) -> None:
    """A row of a table over another row of it."""
    if not known.records:
        return set_field(raw, known, rng)
    base, size, count = rng.choice(known.records)
    source, target = (base + size * rng.randrange(count) for _ in range(2))
    if max(source, target) + size <= len(raw):
        raw[target : target + size] = raw[source : source + size]
    return None


def swap_records(raw: bytearray, known: Map, rng: Random) -> None:
    if not known.records:
        return swap_fields(raw, known, rng)
    base, size, count = rng.choice(known.records)
    first, second = (base + size * rng.randrange(count) for _ in range(2))
    if max(first, second) + size <= len(raw):
        one, two = raw[first : first + size], raw[second : second + size]
        raw[first : first + size], raw[second : second + size] = two, one
    return None


def fill(raw: bytearray, known: Map, rng: Random) -> None:
    """Zeros, ones or noise over some bytes that begin at a structure."""
    start = rng.choice(known.places or [0])
    size = rng.choice([1, 4, 8, 12, 32, 128, 4096])
    size = max(0, min(size, len(raw) - start))
    raw[start : start + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size)])


def flip(raw: bytearray, known: Map, rng: Random) -> None:
    """One to four bytes anywhere."""
    for _ in range(rng.randint(1, 4)):
        if raw:
            raw[rng.randrange(len(raw))] = rng.getrandbits(8)


def cut(raw: bytearray, known: Map, rng: Random) -> None:
    """The file ends in a structure, on a block, or anywhere."""
    ends = [rng.choice(known.places or [0]) + rng.choice([0, 1, 4, 31, 128])]
    ends += [len(raw) - 1, len(raw) & ~4095, (len(raw) - 1) & ~4095, rng.randint(0, len(raw))]
    del raw[max(0, rng.choice(ends)) :]


def extend(raw: bytearray, known: Map, rng: Random) -> None:
    """More behind the end: zeros, noise, or the file's own beginning."""
    size = rng.choice([1, 8, 512, 4096, 65536])
    raw += rng.choice([bytes(size), rng.randbytes(size), bytes(raw[:size])])


def move(raw: bytearray, known: Map, rng: Random) -> None:
    """A structure copied over another."""
    source, target = (rng.choice(known.places or [0]) for _ in range(2))
    size = rng.choice([8, 32, 64, 80, 128, 4096])
    size = max(0, min(size, len(raw) - max(source, target)))
    raw[target : target + size] = raw[source : source + size]


MUTATIONS: list[tuple[int, Callable[[bytearray, Map, Random], None]]] = [
    (50, set_field),
    (15, copy_field),
    (8, swap_fields),
    (8, copy_record),
    (5, swap_records),
    (4, fill),
    (4, flip),
    (2, cut),
    (2, extend),
    (2, move),
]


def mutate(seed: bytes, known: Map, rng: Random) -> bytearray:
    """A mutant of *seed*, whose structures are *known*."""
    raw = bytearray(seed)
    weights = [weight for weight, _ in MUTATIONS]
    for _ in range(rng.randint(1, MOST_MUTATIONS)):
        _, change = rng.choices(MUTATIONS, weights)[0]
        if not known.fields:
            change = flip
        change(raw, known, rng)
    del raw[SIZE_MAX:]
    return raw
