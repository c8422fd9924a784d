"""The images of the fault matrix: made here, and small, as a cell only waits for its fault."""

from __future__ import annotations

import hashlib
import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.hints import spans_to_prefetch
from nydusd.rafs.load import load_bootstrap
from tests.system.readback import load_manifest

FILE_BYTES = 200_000
KINDS = ("v5", "v6", "zran")
ZRAN_BYTES = range(20_000, 200_000)  # of the two files that are read of the zran image


class FaultImage(NamedTuple):
    """One image: its bootstrap, what a server has of it, and what its files hold."""

    kind: str
    bootstrap: Path
    blobs: dict[str, bytes]  # id -> bytes
    digests: dict[str, str]  # of the two files: path in the image -> sha256

    def load(self) -> Bootstrap:
        """The bootstrap, opened."""
        return load_bootstrap(str(self.bootstrap))


def make_images(folder: Path) -> dict[str, FaultImage]:
    """An image of versions 5 and 6, in *folder*."""
    tree = folder / "tree"
    tree.mkdir()
    rng = random.Random(7)
    words = [f"word{number} " for number in range(500)]
    digests = {}
    for path in ("/first", "/second"):
        data = "".join(rng.choices(words, k=FILE_BYTES // 5))[:FILE_BYTES].encode()
        digests[path] = hashlib.sha256(data).hexdigest()
        (tree / path[1:]).write_bytes(data)
    return {kind: _make(kind, tree, folder / kind, digests) for kind in ("v5", "v6")}


def _make(kind: str, tree: Path, folder: Path, digests: dict[str, str]) -> FaultImage:
    (folder / "blobs").mkdir(parents=True)
    options = ["--fs-version", kind[1], "--compressor", "zstd", "--chunk-size", "0x10000"]
    output = ["--bootstrap", str(folder / "bootstrap"), "--blob-dir", str(folder / "blobs")]
    program = [sys.executable, "-m", "nydusd.cli.nydus_image", "create"]
    subprocess.run([*program, *output, *options, str(tree)], check=True, capture_output=True)
    return FaultImage(kind, folder / "bootstrap", _blobs(folder / "blobs"), digests)


def zran_image(folder: Path) -> FaultImage:
    """The reference builder's image of a gzip layer in *folder*: two files far from each other."""
    manifest = load_manifest(folder / "manifest.json.gz")
    fitting = [
        path
        for path, entry in sorted(manifest.items())
        if entry.get("size", 0) in ZRAN_BYTES and path.isascii()
    ]
    paths = (fitting[0], fitting[-1])
    digests = {path: manifest[path]["sha256"] for path in paths}
    return FaultImage("zran", folder / "bootstrap", _blobs(folder / "blobs"), digests)


def _blobs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def spans_of(bootstrap: Bootstrap, path: str) -> list:
    """What a read of all of *path* asks of the blobs."""
    return list(spans_to_prefetch(bootstrap, [path.encode()]))
