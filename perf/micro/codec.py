"""Decompression dispatch and digests: the work on a chunk that was missed."""

from __future__ import annotations

import gzip
import random
from functools import partial

from nydusd.codec.compression import compress, decompress_into
from nydusd.codec.digest import crc32c_of, digest_of
from nydusd.rafs.blobs import Compressor, Digester
from perf.micro.timing import Bench

SIZES = {"4k": 4 << 10, "1m": 1 << 20}


def benches() -> list[Bench]:
    """One of each compressor and digest and size; the dispatch itself is what 4k adds."""
    rng = random.Random(1)
    found = []
    for label, size in SIZES.items():
        plain = bytes(rng.choices(b"abcdefghijklmnop", k=size))
        target = bytearray(size)
        stored_as = {
            Compressor.LZ4_BLOCK: compress(Compressor.LZ4_BLOCK, plain),
            Compressor.GZIP: gzip.compress(plain),
            Compressor.ZSTD: compress(Compressor.ZSTD, plain),
        }
        for compressor, stored in stored_as.items():
            call = partial(decompress_into, compressor, stored, target)
            found.append(Bench(f"decompress-{compressor.name.lower()}-{label}", call, 1, "chunk"))
        for digester in (Digester.BLAKE3, Digester.SHA256):
            call = partial(digest_of, digester, plain)
            found.append(Bench(f"digest-{digester.name.lower()}-{label}", call, 1, "chunk"))
        found.append(Bench(f"crc32c-{label}", partial(crc32c_of, plain), 1, "chunk"))
    return found
