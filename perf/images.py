"""Make the trees, images and complete caches that the scenarios measure.

Everything is made under one work folder that the user names, from a recipe and a seed, and is kept
there for the next run: `trees/`, `images/TREE-vVERSION-COMPRESSOR/` with `bootstrap`, `blobs/` and
`cache/` (complete, filled by one full read through a daemon). The data is random over an alphabet
of 16 letters, so an entropy coder halves it. Run `python -m perf.images --help`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from perf.client import list_files, read_files
from tests.system.daemon import Command, Daemon, parse_command, v1_config

ALPHABET = np.frombuffer(b"abcdefghijklmnop", dtype=np.uint8)
PIECE_BYTES = 16 << 20  # how much of a large file is made at a time
MTIME_S = 1_700_000_000  # of every file: the same recipe gives the same image
CHUNK_MAP_HEADER_BYTES = 4096
CACHE_WAIT_S = 120  # a daemon may write its cache files some time after it answered


@dataclass(frozen=True, slots=True)
class Tree:
    """A recipe: how many files of which sizes."""

    seed: int
    directories: tuple[int, int] = (0, 0)  # top directories, directories in each
    files_per_directory: int = 0  # plus one symbolic link
    median_bytes: int = 4096  # of the log-normal sizes of small files
    mid_files: int = 0  # of 1 MiB
    big_bytes: int = 0  # one file


TREES = {
    # What the figures in docs/performance.md are measured on: 20,000 small files.
    "set": Tree(7, (20, 25), 40, 4096, 1000, 1 << 30),
    # The same in a few seconds, to see that the harness works.
    "smoke": Tree(7, (4, 5), 20, 4096, 40, 64 << 20),
    # 300 MB for `nydus-image create`.
    "create": Tree(11, (10, 25), 20, 4096, 140, 120 << 20),
    # A layer of 1.2 GiB.
    "layer": Tree(17, (5, 10), 40, 4096, 100, 1 << 30),
    # A large file to be cached and many to be missed.
    "stall": Tree(13, mid_files=600, big_bytes=128 << 20),
}


@dataclass(frozen=True, slots=True)
class Image:
    """Which image of which tree."""

    tree: str
    version: int = 6
    compressor: str = "zstd"
    chunk_size: int = 1 << 20
    layer: str = ""  # the tree as a gzip layer, of which the image is a reference: targz-ref

    @property
    def name(self) -> str:
        """Folder name under `images/`."""
        small = "" if self.chunk_size == 1 << 20 else f"-{self.chunk_size >> 10}k"
        return f"{self.tree}-v{self.version}-{self.layer or self.compressor}{small}"


def random_text(rng: np.random.Generator, count: int) -> bytes:
    """*count* bytes that compress to half."""
    return ALPHABET[rng.integers(0, 16, count, dtype=np.uint8)].tobytes()


def write_file(path: Path, rng: np.random.Generator, size: int) -> None:
    """Write *size* random bytes to *path*."""
    with path.open("wb") as out:
        for start in range(0, size, PIECE_BYTES):
            out.write(random_text(rng, min(PIECE_BYTES, size - start)))


def make_tree(work: Path, name: str) -> Path:
    """The folder of tree *name*, made now if it is not there."""
    root = work / "trees" / name
    if root.exists():
        return root
    recipe = TREES[name]
    fresh = root.with_name(f"{name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    rng = np.random.default_rng(recipe.seed)
    tops, subs = recipe.directories
    sizes = rng.lognormal(
        np.log(recipe.median_bytes), 1.0, tops * subs * recipe.files_per_directory
    )
    small = iter(np.clip(sizes, 64, 65536).astype(int).tolist())
    for number in range(tops * subs):
        folder = fresh / "small" / f"t{number // subs:02d}" / f"s{number % subs:02d}"
        folder.mkdir(parents=True)
        for index in range(recipe.files_per_directory):
            write_file(folder / f"file-{index:03d}.dat", rng, next(small))
        (folder / "link").symlink_to("file-000.dat")
    for index in range(recipe.mid_files):
        (fresh / "mid").mkdir(parents=True, exist_ok=True)
        write_file(fresh / "mid" / f"m{index:04d}.bin", rng, 1 << 20)
    if recipe.big_bytes:
        (fresh / "big").mkdir(parents=True)
        write_file(fresh / "big" / "big.bin", rng, recipe.big_bytes)
    for folder, _, names in os.walk(fresh, topdown=False):
        for entry in [*(os.path.join(folder, name) for name in names), folder]:  # noqa: PTH118
            os.utime(entry, (MTIME_S, MTIME_S), follow_symlinks=False)
    fresh.rename(root)
    return root


def create_command(builder: list[str], image: Image, source: Path, out: Path) -> list[str]:
    """The `nydus-image create` command that makes *image* of *source* in *out*."""
    if image.layer:
        return [
            *builder, "create", "-t", image.layer, "-l", "error",
            "--chunk-size", hex(image.chunk_size),
            "-B", str(out / "bootstrap"), "-D", str(out / "blobs"), str(source),
        ]  # fmt: skip
    return [
        *builder, "create", "-t", "dir-rafs", "-l", "error",
        "-v", str(image.version), "--compressor", image.compressor,
        "--chunk-size", hex(image.chunk_size),
        "-B", str(out / "bootstrap"), "-D", str(out / "blobs"), str(source),
    ]  # fmt: skip


def make_layer(source: Path, blobs: Path) -> Path:
    """*source* as a gzip layer among *blobs*, named by its digest as a registry has it."""
    path = blobs / "layer"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        tar.add(source, ".")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return path.rename(blobs / digest)


def make_image(work: Path, image: Image, builder: list[str]) -> Path:
    """The folder of *image*, made now with *builder* if it is not there."""
    folder = work / "images" / image.name
    if folder.exists():
        return folder
    source = make_tree(work, image.tree)
    fresh = folder.with_name(f"{image.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    (fresh / "blobs").mkdir(parents=True)
    if image.layer:
        source = make_layer(source, fresh / "blobs")
    subprocess.run(
        create_command(builder, image, source, fresh), check=True, stdout=subprocess.DEVNULL
    )
    fresh.rename(folder)
    return folder


def is_complete(cache: Path) -> bool:
    """Whether every chunk map in *cache* says that all its chunks are ready."""
    maps = list(cache.glob("*.chunk_map"))
    for path in maps:
        bits = path.read_bytes()[CHUNK_MAP_HEADER_BYTES:]
        # The last byte may have unused bits.
        if bits[:-1].strip(b"\xff") or not bits or bits[-1] == 0:
            return False
    return bool(maps)


def wait_until(done: Callable[[], bool], what: str) -> None:
    """Return once *done* is true; `SystemExit` with *what* after `CACHE_WAIT_S`."""
    deadline = time.monotonic() + CACHE_WAIT_S
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} after {CACHE_WAIT_S} s")
        time.sleep(0.2)


def settled_maps(cache: Path) -> Callable[[], bool]:
    """A question whether the chunk maps in *cache* have stayed as they were for a second."""
    seen, since = b"", time.monotonic()

    def ask() -> bool:
        nonlocal seen, since
        now = b"".join(path.read_bytes() for path in sorted(cache.glob("*.chunk_map")))
        if now != seen:
            seen, since = now, time.monotonic()
        return bool(now) and time.monotonic() - since > 1

    return ask


def share_chunk_maps(cache: Path) -> None:
    """Give each chunk map in *cache* both names that releases of nydusd look for.

    Releases up to 2.2 name it `ID.chunk_map`, later ones `ID.blob.data.chunk_map`; the content is
    the same (rafs-format: chunk map).
    """
    for path in list(cache.glob("*.chunk_map")):
        blob_id = path.name.partition(".")[0]
        for name in (f"{blob_id}.chunk_map", f"{blob_id}.blob.data.chunk_map"):
            if not (cache / name).exists():
                (cache / name).hardlink_to(path)


def fill_cache(
    work: Path, folder: Path, daemon: Command, only: Sequence[str] = (), amplify: int = 1 << 20
) -> Path:
    """The cache of the image in *folder*, filled now through *daemon* if it is not.

    Complete, or with what the folders *only* of the image need.
    """
    cache = folder / "-".join(["cache", *only])
    if cache.exists():
        return cache
    fresh = cache.with_name(f"{cache.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    config = folder / "fill.json"
    config.write_text(json.dumps(v1_config(folder / "blobs", fresh, amplify=amplify)))
    mount = work / "mnt-fill"
    mount.mkdir(exist_ok=True)
    with Daemon(daemon.argv, mount, bootstrap=folder / "bootstrap", config=config, env=daemon.env):
        for part in only or (".",):
            read_files(work, list_files(mount / part), 2)
        done = settled_maps(fresh) if only else partial(is_complete, fresh)
        wait_until(done, f"{fresh}: chunks still not kept")
    share_chunk_maps(fresh)
    fresh.rename(cache)
    return cache


def main() -> None:
    """Make images and fill their caches ahead of a measurement."""
    parser = argparse.ArgumentParser(prog="python -m perf.images", description=main.__doc__)
    parser.add_argument("images", nargs="+", metavar="TREE:VERSION:COMPRESSOR[:CHUNK_SIZE]")
    parser.add_argument("--work", type=Path, required=True, help="folder for all of it")
    parser.add_argument("--nydus-image", default="nydus-image", metavar="COMMAND")
    parser.add_argument("--nydusd", metavar="COMMAND", help="fills the caches; none without it")
    args = parser.parse_args()
    for text in args.images:
        tree, version, compressor, *rest = text.split(":")
        image = Image(tree, int(version), compressor, int(rest[0], 0) if rest else 1 << 20)
        folder = make_image(args.work, image, parse_command(args.nydus_image).argv)
        if args.nydusd:
            fill_cache(args.work, folder, parse_command(args.nydusd))
        print(folder)


if __name__ == "__main__":
    main()
