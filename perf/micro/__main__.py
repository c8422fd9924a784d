"""Time single parts of the program: `python -m perf.micro [PREFIX...] [--out FILE.json]`.

Needs no mount and no root. One core is enough, an idle one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from perf.measure import commit, machine
from perf.micro import cache, codec, rafs

GROUPS = (cache, codec, rafs)


def main() -> None:
    """Time all benches whose name starts with one of the prefixes."""
    parser = argparse.ArgumentParser(prog="python -m perf.micro", description=__doc__)
    parser.add_argument("prefix", nargs="*", help="all benches without one")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    args = parser.parse_args()
    figures = {}
    for group in GROUPS:
        for bench in group.benches():
            if args.prefix and not bench.name.startswith(tuple(args.prefix)):
                continue
            figures[bench.name] = bench.ns_per_item()
            print(f"{bench.name:28} {figures[bench.name]:14,.1f} ns/{bench.unit}", flush=True)
    if args.out:
        report = {"commit": commit(), "machine": machine(), "ns": figures}
        args.out.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
