"""The table of docs/formats/images.md: every image with every kind of cache, cold and warm.

`python -m tests.system.image_table [FOLDER...] > docs/formats/images.md`, as root, with /dev/fuse.
Folders of images beside those in tests/golden have the form that `tests.system.images` describes.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.system.daemon import Daemon, v1_config
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences
from tests.system.test_images import CACHES, HUGE

HEAD = """# Images that are read

Each image was mounted twice with each kind of cache, with an empty one and with what the first
mount left; every attribute and every byte was compared with the tree that it was made of. Made by

    python -m tests.system.image_table [FOLDER...] > docs/formats/images.md

"equal": both times; "refused": the mount says why. Images in `tests/golden` are checked so in CI,
the others are larger ones of the reference's builder.
"""


def mounted(image: Image, folder: Path, settings: dict[str, object]) -> str:
    """How *image* reads back with a cache in *folder*: equal, refused, or the first difference."""
    mountpoint = folder / "mnt"
    mountpoint.mkdir()
    chosen = dict(settings)
    cache = chosen.pop("cache", folder / "cache")
    if cache is not None:
        Path(cache).mkdir()
    config = folder / "config.json"
    blobs = image.blobs if image.blobs.exists() else folder
    config.write_text(json.dumps(v1_config(blobs, cache, **chosen)))
    for _ in range(2):
        now = time.time()
        command = [sys.executable, "-m", "nydusd.cli.nydusd"]
        daemon = Daemon(command, mountpoint, bootstrap=image.bootstrap, config=config)
        try:
            with daemon:
                found = differences(daemon.mountpoint, image.manifest, now)
        except RuntimeError as exc:
            found = ["refused" if "enable_encryption" in str(exc) else str(exc)]
        finally:
            daemon.stop()
        if found:
            return found[0]
    return "equal"


def rows(folders: list[Path]) -> list[str]:
    """Lines of the table."""
    lines = ["| image | " + " | ".join(CACHES) + " |", "| --- " * (len(CACHES) + 1) + "|"]
    for folder in folders:
        for path in sorted(path for path in folder.iterdir() if path.is_dir()):
            if path.name in HUGE:
                continue
            results = []
            for settings in CACHES.values():
                with tempfile.TemporaryDirectory() as scratch:
                    results.append(mounted(Image(path), Path(scratch), settings))
            lines.append(f"| {path.name} | " + " | ".join(results) + " |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines


def main() -> None:
    """Print the page."""
    print(HEAD)
    print("\n".join(rows([GOLDEN, *map(Path, sys.argv[1:])])))


if __name__ == "__main__":
    main()
