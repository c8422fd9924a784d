"""Compile `client.c` on the fly and run it.

The client is C so that what is measured is the mount and not the interpreter of the reader. Runs of
it are plain commands; `perf.run` times them, `perf.images` fills caches with them.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("client.c")


def build_client(work: Path) -> Path:
    """The compiled client in *work*, made now if it is older than its source."""
    program = work / "client"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        work.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "cc").split()
        subprocess.run([*compiler, "-O2", "-Wall", "-o", program, SOURCE], check=True)
    return program


def list_files(root: Path) -> list[str]:
    """Paths of all regular files below *root*, directory by directory, sorted."""
    paths = []
    for folder, directories, names in os.walk(root):
        directories.sort()
        whole = (os.path.join(folder, name) for name in sorted(names))  # noqa: PTH118
        paths += [path for path in whole if not os.path.islink(path)]  # noqa: PTH114
    return paths


def write_list(path: Path, names: list[str]) -> Path:
    """*path*, with one name a line."""
    path.write_text("".join(f"{name}\n" for name in names))
    return path


def read_files(work: Path, names: list[str], processes: int) -> None:
    """Read all of *names* with *processes* readers; `CalledProcessError` if one fails."""
    listing = write_list(work / "fill.list", names)
    command = [build_client(work), "read", listing, str(processes)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
