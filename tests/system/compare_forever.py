"""A reader under load: `python -m tests.system.compare_forever SOURCE MOUNTED SEED`.

Reads files below MOUNTED in an order of its own, past the kernel's memory of them, and compares
each with the one below SOURCE, until a number comes on standard input and at least so many files
have been read. Then one line of JSON: files read, failures (errors and wrong bytes), and the
longest time one file took.
"""

from __future__ import annotations

import json
import os
import random
import select
import sys
import time
from pathlib import Path


def read_past_cache(path: Path) -> bytes:
    """All of a file, asked of the file system and not of the kernel's memory."""
    with path.open("rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return b"".join(iter(lambda: file.read(1 << 17), b""))


def main() -> None:
    source, mounted = Path(sys.argv[1]), Path(sys.argv[2])
    order = random.Random(int(sys.argv[3]))
    wanted = {
        path.relative_to(source): path.read_bytes()
        for path in source.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    names = sorted(wanted)
    files = failures = 0
    stall = 0.0
    print("reading", flush=True)
    at_least = None
    while at_least is None or files < at_least:
        if at_least is None and select.select([sys.stdin], [], [], 0)[0]:
            at_least = int(sys.stdin.readline() or 0)
        name = order.choice(names)
        began = time.monotonic()
        try:
            failures += read_past_cache(mounted / name) != wanted[name]
        except OSError as exc:
            print(f"{name}: {exc}", file=sys.stderr)
            failures += 1
        stall = max(stall, time.monotonic() - began)
        files += 1
    print(json.dumps({"files": files, "failures": failures, "stall": stall}))


if __name__ == "__main__":
    main()
