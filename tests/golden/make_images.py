"""Make the images in `images/` again with the reference's builder.

`python -m tests.golden.make_images nydus-image`, as root. The tree holds one of each kind of thing
a RAFS image knows, small enough for a repository.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.system.readback import manifest_of

IMAGES = Path(__file__).with_name("images")
MTIME_NS = 1_600_000_000_123_456_789
AFTER_2106_NS = (2**32 + 5) * 10**9  # more than 32 bits of seconds
# Name of the image: options of `nydus-image create`.
OPTIONS = {
    "v5-lz4": ["-v", "5", "--compressor", "lz4_block", "--digester", "sha256"],
    "v5-zstd": ["-v", "5", "--compressor", "zstd", "--chunk-size", "0x1000"],
    "v5-none": ["-v", "5", "--compressor", "none", "--aligned-chunk"],
    "v6-lz4": ["-v", "6", "--compressor", "lz4_block", "--chunk-size", "0x1000"],
    "v6-zstd": ["-v", "6", "--compressor", "zstd"],
    "v6-none": ["-v", "6", "--compressor", "none", "--digester", "sha256"],
}


def make_tree(root: Path) -> None:
    """Fill *root*."""
    rng = random.Random(20)
    words = [f"word{number} " for number in range(64)]
    for size in (0, 1, 100, 4095, 4096, 4097, 20_000):
        text = "".join(rng.choices(words, k=size // 5 + 1))
        (root / f"file-{size}").write_text(text[:size])
    (root / "noise").write_bytes(rng.randbytes(3000))
    (root / "twice").write_bytes((root / "file-20000").read_bytes())
    with (root / "sparse").open("wb") as file:
        file.truncate(70_000)
        file.seek(40_000)
        file.write(b"in the middle")
    (root / "deep" / "er" / "still").mkdir(parents=True)
    (root / "deep" / "er" / "still" / "leaf").write_text("leaf\n")
    (root / "empty").mkdir(mode=0o1777)
    (root / "many").mkdir()
    for number in range(200):
        (root / "many" / f"entry-{number:03d}-{'x' * (number % 40)}").write_bytes(b"")
    os.link(root / "file-100", root / "deep" / "same")
    (root / "link").symlink_to("deep/er")
    (root / "dangling").symlink_to("nowhere")
    (root / ("l" * 255)).write_text("long name\n")
    Path(os.fsdecode(os.fsencode(root) + b"/not-utf8-\xff\xfe")).write_text("bytes\n")
    (root / "grüße").write_text("utf-8\n")
    os.mkfifo(root / "fifo", 0o600)
    os.mknod(root / "char", stat.S_IFCHR | 0o620, os.makedev(1, 3))
    os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(259, 70_000))
    os.setxattr(root / "file-1", "user.short", b"v")
    os.setxattr(root / "file-1", "user.long", rng.randbytes(900))
    os.setxattr(root / "file-1", "trusted.empty", b"")
    os.setxattr(root / "deep", "user.on-a-directory", b"\0\1\2")
    os.chown(root / "file-4095", 70_000, 2**31 + 5)
    (root / "file-4096").chmod(0o4751)


def settle_times(root: Path) -> None:
    """Give every entry of *root* a time; two have odd ones."""
    for folder, directories, names in os.walk(root, topdown=False):
        for name in [*directories, *names]:
            path = Path(folder, name)
            os.utime(path, ns=(MTIME_NS, MTIME_NS), follow_symlinks=False)
    os.utime(root, ns=(MTIME_NS, MTIME_NS))
    os.utime(root / "file-0", ns=(0, 0))
    os.utime(root / "file-1", ns=(AFTER_2106_NS, AFTER_2106_NS))


def main() -> None:
    """Write all images anew."""
    builder = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "tree")
        root.mkdir(mode=0o755)
        make_tree(root)
        settle_times(root)
        tree = manifest_of(root)
        tree["/"]["mtime"] = [0, 0]  # the builder does not keep the root's
        manifest = json.dumps(tree, indent=1, sort_keys=True).encode()
        shutil.rmtree(IMAGES, ignore_errors=True)
        for name, options in OPTIONS.items():
            out = IMAGES / name
            (out / "blobs").mkdir(parents=True)
            command = [builder, "create", "-t", "dir-rafs", "-l", "error", *options]
            command += ["-B", str(out / "bootstrap"), "-D", str(out / "blobs"), str(root)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            packed = gzip.compress(manifest, mtime=0)
            (out / "manifest.json.gz").write_bytes(packed)


if __name__ == "__main__":
    main()
