"""Trees whose images by the reference's builder are kept in `tests/golden/builds`.

`python -m tests.build.golden_trees nydus-image` makes those images again.
"""

import gzip
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

BUILDS = Path(__file__).parent.parent / "golden" / "builds"
KEPT_BYTES = 64 << 10  # of a compressed bootstrap; larger ones are known by their digest
MTIME_NS = 1_600_000_000_123_456_789


def settle(root: Path) -> None:
    """Modes and times of all of *root* that do not depend on where and when it was made."""
    for folder, directories, names in os.walk(root, topdown=False):
        for name in [*directories, *names]:
            place = Path(folder, name)
            if not place.is_symlink():
                place.chmod(0o755 if place.is_dir() else 0o640)
            os.utime(place, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
    root.chmod(0o755)


def tiny(root: Path) -> None:
    """The worked example of the format: one file, one directory, one symlink."""
    (root / "hello").write_bytes(b"hello hello hello hello hello hello\n")
    (root / "sub").mkdir()
    (root / "sub" / "link").symlink_to("../hello")
    settle(root)
    os.utime(root / "hello", ns=(1_000_000_002, 1_000_000_002))


def empty(root: Path) -> None:
    """No file at all."""
    settle(root)


def mixed(root: Path) -> None:
    """Each kind of object that needs no privilege, directories of awkward sizes, equal data."""
    rng = random.Random(7)
    for size in (0, 1, 4095, 4096, 4097, 70_000):
        (root / f"file-{size}").write_bytes(rng.randbytes(size))
    (root / "equal").write_bytes((root / "file-70000").read_bytes())
    with (root / "sparse").open("wb") as file:
        file.truncate(3 << 20)
    os.link(root / "file-4097", root / "hard link")
    for length in (1, 100, 3900, 4090):
        (root / f"link-{length}").symlink_to("t" * length)
    os.link(root / "link-100", root / "link-100-again", follow_symlinks=False)
    os.mkfifo(root / "fifo")
    folder = os.fsencode(root)
    for name in (b"!", b"-", b".!", b"..!", b"...", b"\xff\xfe", b"n" * 255):
        Path(os.fsdecode(folder + b"/" + name)).write_bytes(name)
    for count in (0, 1, 60, 113, 400):  # fill none, part of, and several directory blocks
        (root / f"directory-{count}").mkdir()
        for number in range(count):
            name = f"{number:04d}" + "x" * (number % 31)
            (root / f"directory-{count}" / name).write_bytes(b"%d" % (number // 2))
    deep = root
    for level in range(40):
        deep = deep / f"level-{level}"
        deep.mkdir()
    settle(root)


def attributes(root: Path) -> None:
    """One attribute a file, of many lengths; needs a file system with user attributes."""
    for length in (0, 1, 3, 4, 500, 3000):
        file = root / f"value-{length}"
        file.write_bytes(b"data")
        os.setxattr(file, "user.name", b"v" * length)
    (root / "directory").mkdir()
    os.setxattr(root / "directory", "user.d", b"of a directory")
    settle(root)


def many_chunks(root: Path) -> None:
    """More than 8192 chunks of 4096 bytes: the CI array is larger than one zstd block."""
    (root / "numbers").write_bytes(b"".join(b"%4096d" % number for number in range(9000)))
    settle(root)


TREES: dict[str, Callable[[Path], None]] = {
    tree.__name__: tree for tree in (tiny, empty, mixed, attributes, many_chunks)
}
# Name of the image: its tree, and the options of `create` beside --repeatable and where to write.
IMAGES = {
    "tiny-v5": ("tiny", ["-v", "5", "--compressor", "none", "--digester", "sha256"]),
    "tiny-v6": ("tiny", ["-v", "6", "--compressor", "none", "--digester", "sha256"]),
    "empty-v5": ("empty", ["-v", "5", "--compressor", "none"]),
    "empty-v6": ("empty", ["-v", "6", "--compressor", "none"]),
    "mixed-v5": ("mixed", ["-v", "5", "--compressor", "none"]),
    "mixed-v5-aligned": (
        "mixed",
        ["-v", "5", "--compressor", "none", "--aligned-chunk", "--chunk-size", "0x10000"],
    ),
    "mixed-v6": ("mixed", ["-v", "6", "--compressor", "none"]),
    "mixed-v6-4k": ("mixed", ["-v", "6", "--compressor", "none", "--chunk-size", "0x1000"]),
    "mixed-v6-toc": ("mixed", ["-v", "6", "--compressor", "none", "--features", "blob-toc"]),
    "attributes-v5": ("attributes", ["-v", "5", "--compressor", "none"]),
    "attributes-v6": ("attributes", ["-v", "6", "--compressor", "none"]),
    "many-chunks-v6": ("many_chunks", ["-v", "6", "--compressor", "none", "--chunk-size", "1000"]),
}


def sha256_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(nydus_image: str) -> None:
    digests = {}
    for name, (tree, options) in IMAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            root, bootstrap, blob = (Path(folder, part) for part in ("root", "boot", "blob"))
            root.mkdir()
            TREES[tree](root)
            where = ["-B", bootstrap, "-b", blob, "--repeatable", root]
            subprocess.run([nydus_image, "create", *options, *where], check=True)
            packed = gzip.compress(bootstrap.read_bytes(), mtime=0)
            if len(packed) <= KEPT_BYTES:
                (BUILDS / f"{name}.boot.gz").write_bytes(packed)
            digests[name] = {part.name: sha256_of(part) for part in (bootstrap, blob)}
    (BUILDS / "digests.json").write_text(json.dumps(digests, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
