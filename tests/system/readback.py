"""Compare a mounted tree with a manifest of what it must show, in every attribute and byte.

A manifest maps a path (`/` is the root, names that are not UTF-8 with surrogate escapes) to mode,
uid, gid, nlink, mtime [s, ns], xattrs (hex) and, by kind, size and sha256, rdev [major, minor],
target, `same_as` (another name of the same inode). Reference images carry one as
`manifest.json.gz`.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import time
from collections import Counter
from pathlib import Path
from typing import Any

READ_BYTES = 1 << 20
CLOCK_SLACK_S = 2  # between the daemon's own start and the moment a test has seen
ROOT_MODE = stat.S_IFDIR | 0o755  # whatever the image says of its root

Manifest = dict[str, dict[str, Any]]


def load_manifest(path: Path) -> Manifest:
    """The manifest in *path*, gzip-compressed JSON."""
    manifest: Manifest = json.loads(gzip.decompress(path.read_bytes()))
    return manifest


def sha256_of(path: str) -> str:
    """Digest of the content of *path* in hex, read in pieces."""
    digest = hashlib.sha256()
    file = os.open(path, os.O_RDONLY)
    try:
        while piece := os.read(file, READ_BYTES):
            digest.update(piece)
    finally:
        os.close(file)
    return digest.hexdigest()


def describe(path: str, with_data: bool = True) -> dict[str, Any]:
    """The manifest entry of *path* as it stands, without `same_as`."""
    info = os.lstat(path)
    entry: dict[str, Any] = {
        "mode": info.st_mode,
        "uid": info.st_uid,
        "gid": info.st_gid,
        "nlink": info.st_nlink,
        "mtime": list(divmod(info.st_mtime_ns, 10**9)),
        "xattrs": {
            name: os.getxattr(path, name, follow_symlinks=False).hex()
            for name in os.listxattr(path, follow_symlinks=False)
        },
    }
    if stat.S_ISREG(info.st_mode):
        entry["size"] = info.st_size
        if with_data:
            entry["sha256"] = sha256_of(path)
    elif stat.S_ISLNK(info.st_mode):
        entry["target"] = os.readlink(path)  # noqa: PTH115 - a Path loses slashes at the end
    elif stat.S_ISBLK(info.st_mode) or stat.S_ISCHR(info.st_mode):
        entry["rdev"] = [os.major(info.st_rdev), os.minor(info.st_rdev)]
    return entry


def paths_of(root: Path) -> list[str]:
    """All paths below *root* as a manifest names them, sorted, `/` among them."""
    found = ["/"]
    for folder, directories, names in os.walk(root):
        inside = os.path.relpath(folder, root)
        prefix = "/" if inside == "." else f"/{inside}/"
        found += [prefix + name for name in directories + names]
    return sorted(found)


def manifest_of(root: Path) -> Manifest:
    """The manifest of the plain tree *root*."""
    manifest: Manifest = {}
    first_name: dict[int, str] = {}
    for path in paths_of(root):
        whole = os.fspath(root) + path
        manifest[path] = describe(whole)
        info = os.lstat(whole)
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            first = first_name.setdefault(info.st_ino, path)
            if first != path:
                manifest[path]["same_as"] = first
    return manifest


def differences(
    root: Path, manifest: Manifest, started: float, with_data: bool = True
) -> list[str]:
    """Each way in which the mounted tree *root* is not what *manifest* says, as a line.

    *started* is when the daemon was started, seconds since the epoch: a mount shows its start time
    for an mtime whose second is 0.
    """
    here = paths_of(root)
    counts = Counter(here)
    lines = [f"{path!a}: listed {count} times" for path, count in counts.items() if count > 1]
    lines += [f"{path!a}: missing" for path in sorted(manifest.keys() - set(here))]
    lines += [f"{path!a}: not in the manifest" for path in sorted(set(here) - manifest.keys())]
    for path in sorted(manifest.keys() & set(here)):
        whole = os.fspath(root) + path
        try:
            seen = describe(whole, with_data)
        except OSError as error:
            lines.append(f"{path!a}: {error.strerror}")
            continue
        found = entry_differences(path, manifest[path], seen, started)
        lines += [f"{path!a}: {line}" for line in found]
        other = manifest[path].get("same_as")
        if other is not None and not os.path.samestat(os.lstat(whole), os.lstat(f"{root}{other}")):
            lines.append(f"{path!a}: another inode than {other!a}")
    return lines


def entry_differences(
    path: str, wanted: dict[str, Any], seen: dict[str, Any], started: float
) -> list[str]:
    """Each attribute of one entry that is not as *wanted*."""
    wanted = dict(wanted)
    if path == "/":
        wanted["mode"] = ROOT_MODE
    if wanted["mtime"][0] == 0:
        del wanted["mtime"]
    lines = []
    for name in sorted(wanted.keys() | seen.keys() - {"mtime"}):
        if name == "same_as" or (name == "sha256" and name not in seen):
            continue
        if wanted.get(name) != seen.get(name):
            lines.append(f"{name} {seen.get(name)!a}, wanted {wanted.get(name)!a}")
    if "mtime" not in wanted and not (
        started - CLOCK_SLACK_S <= seen["mtime"][0] <= time.time() + CLOCK_SLACK_S
    ):
        lines.append(f"mtime {seen['mtime']}, wanted the daemon's start, {started:.0f}")
    return lines
