"""The reference builder's images, as far as a bootstrap tells of them, against their manifests."""

import gzip
import json
import os
import stat
from pathlib import Path

from nydusd.rafs.blobs import refuse_unsupported
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.load import load_bootstrap


def shown(bootstrap: Bootstrap, ino: int) -> dict[str, object]:
    """What a manifest says of an inode, but for the digest of its data."""
    found = bootstrap.stat(ino)
    told: dict[str, object] = {
        "mode": found.mode,
        "uid": found.uid,
        "gid": found.gid,
        "nlink": found.nlink,
        "mtime": [found.mtime, found.mtime_nsec],
        "xattrs": {os.fsdecode(k): v.hex() for k, v in bootstrap.xattrs(ino).items()},
    }
    if stat.S_ISREG(found.mode):
        told["size"] = found.size
        assert sum(span.length for span in bootstrap.chunk_spans(ino)) == found.size
    if stat.S_ISLNK(found.mode):
        told["target"] = os.fsdecode(bootstrap.target(ino))
        assert len(bootstrap.target(ino)) == found.size
    if stat.S_ISCHR(found.mode) or stat.S_ISBLK(found.mode):
        device = found.rdev
        told["rdev"] = [device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00]
    return told


def images(folder: Path) -> list[tuple[Path, Path]]:
    """Folder and bootstrap (or the blob that holds it) of each image."""
    found = []
    for image in sorted(path for path in folder.iterdir() if path.is_dir()):
        bootstrap = image / "bootstrap"
        found.append((image, bootstrap if bootstrap.exists() else min(image.glob("blobs/*"))))
    return found


def test_every_attribute_is_what_the_manifest_says(reference_images: Path) -> None:
    for image, path in images(reference_images):
        manifest = json.loads(gzip.decompress((image / "manifest.json.gz").read_bytes()))
        bootstrap = load_bootstrap(path)
        inos = {os.fsdecode(entry.path): entry.ino for entry in bootstrap.walk()}

        assert inos.keys() == manifest.keys(), image.name
        for name, expected in manifest.items():
            ino = inos[name]
            expected.pop("sha256", None)
            assert ino == inos[expected.pop("same_as", name)], (image.name, name)
            assert shown(bootstrap, ino) == expected, (image.name, name)
            assert bootstrap.find(os.fsencode(name)) == ino


def test_no_image_of_the_reference_is_refused(reference_images: Path) -> None:
    for _, path in images(reference_images):
        refuse_unsupported(load_bootstrap(path).blobs)
