"""Questions to a bootstrap: names, directory entries, chunk locations.

Through Python-level methods that loop in C, so the figures hold the cost of making Python objects;
compare them with themselves.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

from nydusd.rafs.load import load_bootstrap
from perf.micro.timing import Bench

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "images"
DIRECTORY = b"/many"


def benches() -> list[Bench]:
    """The same questions to an image of each version."""
    found = []
    for name in ("v5-zstd", "v6-lz4"):  # chunks of 4 KiB
        bootstrap = load_bootstrap(GOLDEN / name / "bootstrap")
        directory = bootstrap.find(DIRECTORY)
        entries = bootstrap.entries(directory)
        file = bootstrap.find(b"/file-20000")
        chunks = len(list(bootstrap.chunk_spans(file)))
        last = entries[-1].name
        lookup = partial(bootstrap.child, directory, last)
        spans = partial(consume_spans, bootstrap, file)
        walk = partial(bootstrap.entries, directory)
        found += [
            Bench(f"load-{name}", partial(load_bootstrap, GOLDEN / name / "bootstrap"), 1, "image"),
            Bench(f"lookup-{name}", lookup, 1, "name"),
            Bench(f"entries-{name}", walk, len(entries), "entry"),
            Bench(f"spans-{name}", spans, chunks, "chunk"),
            Bench(f"stat-{name}", partial(bootstrap.stat, file), 1, "inode"),
        ]
    return found


def consume_spans(bootstrap, file):
    """Ask for all chunks of *file*."""
    for _ in bootstrap.chunk_spans(file):
        pass
