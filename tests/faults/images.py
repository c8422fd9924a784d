"""The images of the fault matrix: made here, and small, as a cell only waits for its fault."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.hints import spans_to_prefetch
from nydusd.rafs.load import load_bootstrap

FILES = ("/first", "/second")
FILE_BYTES = 200_000
KINDS = ("v5", "v6")


class FaultImage(NamedTuple):
    """One image: its bootstrap, what a server has of it, and what its files hold."""

    kind: str
    bootstrap: Path
    blobs: dict[str, bytes]  # id -> bytes
    content: dict[str, bytes]  # path in the image -> bytes

    def load(self) -> Bootstrap:
        """The bootstrap, opened."""
        return load_bootstrap(str(self.bootstrap))


def make_images(folder: Path) -> dict[str, FaultImage]:
    """An image of each kind, in *folder*."""
    tree = folder / "tree"
    tree.mkdir()
    rng = random.Random(7)
    words = [f"word{number} " for number in range(500)]
    content = {}
    for path in FILES:
        text = "".join(rng.choices(words, k=FILE_BYTES // 5))[:FILE_BYTES]
        content[path] = text.encode()
        (tree / path[1:]).write_bytes(content[path])
    return {kind: _make(kind, tree, folder / kind, content) for kind in KINDS}


def _make(kind: str, tree: Path, folder: Path, content: dict[str, bytes]) -> FaultImage:
    (folder / "blobs").mkdir(parents=True)
    options = ["--fs-version", kind[1], "--compressor", "zstd", "--chunk-size", "0x10000"]
    output = ["--bootstrap", str(folder / "bootstrap"), "--blob-dir", str(folder / "blobs")]
    program = [sys.executable, "-m", "nydusd.cli.nydus_image", "create"]
    subprocess.run([*program, *output, *options, str(tree)], check=True, capture_output=True)
    blobs = {path.name: path.read_bytes() for path in (folder / "blobs").iterdir()}
    return FaultImage(kind, folder / "bootstrap", blobs, content)


def spans_of(bootstrap: Bootstrap, path: str) -> list:
    """What a read of all of *path* asks of the blobs."""
    return list(spans_to_prefetch(bootstrap, [path.encode()]))
