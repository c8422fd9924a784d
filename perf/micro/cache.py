"""Ready bits, and the merging of missing chunks into requests."""

from __future__ import annotations

from functools import partial

from nydusd.cache.chunkmap import ChunkMap, count_bits
from nydusd.cache.plan import plan_requests
from perf.micro.timing import Bench

CHUNKS = 1 << 16
BATCH_BYTES = 1 << 20


def benches() -> list[Bench]:
    """A map of 65,536 chunks, and a read that misses a thousand neighbouring ones."""
    chunks = ChunkMap(CHUNKS)
    for index in range(0, CHUNKS, 2):
        chunks.mark_ready(index)
    bits = bytes(b"\xaa" * (CHUNKS // 8))
    close = [(index * 2048, 2048) for index in range(1000)]
    apart = [(index * 65_536, 2048) for index in range(1000)]
    return [
        Bench("bit-test", partial(chunks.ready, CHUNKS // 2), 1, "chunk"),
        Bench("bits-count", partial(count_bits, bits), CHUNKS, "chunk"),
        Bench("claim", partial(claim_all, chunks), CHUNKS // 2, "chunk"),
        Bench("merge-close", partial(plan_requests, close, BATCH_BYTES), len(close), "chunk"),
        Bench("merge-apart", partial(plan_requests, apart, BATCH_BYTES), len(apart), "chunk"),
    ]


def claim_all(chunks):
    """Claim every missing chunk and give it up again."""
    for index in range(1, CHUNKS, 2):
        chunks.try_claim(index)
        chunks.give_up(index)
