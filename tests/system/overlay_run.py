"""An overlay of a tree of one's own: its image, its directories, its daemon, the kernel's mount.

Whatever is mounted is taken away again by the context managers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.system.daemon import Command, Daemon

CHUNK = "0x10000"


def make_image(tree: Path, folder: Path, version: str = "6") -> None:
    """An image of *tree* in *folder*: `bootstrap` and `blobs/`."""
    (folder / "blobs").mkdir(parents=True)
    program = [sys.executable, "-m", "nydusd.cli.nydus_image", "create"]
    output = ["--bootstrap", str(folder / "bootstrap"), "--blob-dir", str(folder / "blobs")]
    options = ["--fs-version", version, "--compressor", "lz4_block", "--chunk-size", CHUNK]
    subprocess.run([*program, *output, *options, str(tree)], check=True, capture_output=True)


class Layers:
    """The directories of one overlay below *folder*, and the image of *tree* as its lower side."""

    def __init__(self, folder: Path, tree: Path, version: str = "6") -> None:
        self.folder = folder
        self.tree = tree  # what the image was made of
        self.upper = folder / "upper"
        self.work = folder / "work"
        self.mountpoint = folder / "mnt"
        for path in (self.upper, self.work, self.mountpoint, folder / "cache"):
            path.mkdir(parents=True)
        make_image(tree, folder / "image", version)

    def config(self, **overlay: str) -> dict[str, object]:
        """A configuration with the overlay; *overlay* replaces keys of its section."""
        section = {"upper_dir": str(self.upper), "work_dir": str(self.work), **overlay}
        return {
            "version": 2,
            "backend": {"type": "localfs", "localfs": {"dir": str(self.folder / "image/blobs")}},
            "cache": {
                "type": "blobcache",
                "filecache": {"work_dir": str(self.folder / "cache")},
            },
            "rafs": {"mode": "direct", "enable_xattr": True},
            "overlay": section,
        }

    def daemon(
        self, command: Command, *options: str, writable: bool = True, **overlay: str
    ) -> Daemon:
        """A daemon that serves the overlay, not started."""
        config = self.folder / "config.json"
        config.write_text(json.dumps(self.config(**overlay)))
        return Daemon(
            command.argv,
            self.mountpoint,
            bootstrap=self.folder / "image/bootstrap",
            config=config,
            options=(*options, *(["--writable"] if writable else [])),
            env=command.env,
        )

    @contextlib.contextmanager
    def kernel_mount(self, upper: Path | None = None) -> Iterator[Path]:
        """The same layers mounted by the kernel's overlayfs, over the tree the image is made of."""
        point, work = self.folder / "kernel", self.folder / "kernel-work"
        for path in (point, work):
            path.mkdir(exist_ok=True)
        options = f"lowerdir={self.tree},upperdir={upper or self.upper},workdir={work}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(point)], check=True)
        try:
            yield point
        finally:
            subprocess.run(["umount", str(point)], check=True)
            shutil.rmtree(work, ignore_errors=True)


def copy_tree(source: Path, target: Path) -> None:
    """A copy with owners, times, links, attributes and special files."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def has_overlayfs() -> bool:
    """Whether the kernel has overlayfs and lets us mount it."""
    return os.geteuid() == 0 and "overlay" in Path("/proc/filesystems").read_text()


def lacking(folder: Path) -> str:
    """Why the file system of *folder* cannot hold an upper directory with all that tests put there.

    Empty when it can. An overlayfs, as containers have it, has no whiteouts of its own.
    """
    whiteout = folder / "whiteout"
    try:
        os.mknod(whiteout, stat.S_IFCHR, 0)
        whiteout.unlink()
        for name in ("user.x", "trusted.x"):
            os.setxattr(folder, name, b"")
            os.removexattr(folder, name)
    except OSError as error:
        return f"{folder} cannot hold an overlay: {error}; set --basetemp to one that can"
    return ""


def names_in(folder: Path) -> list[str]:
    """The names in *folder*, sorted."""
    return sorted(path.name for path in folder.iterdir())
