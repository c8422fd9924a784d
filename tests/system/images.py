"""The images that system tests mount: the small ones in tests/golden, and the reference's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.system.readback import Manifest, load_manifest

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "images"
LAYERS = GOLDEN.with_name("layers")  # references to OCI layers


@dataclass(frozen=True, slots=True)
class Image:
    """A folder with `bootstrap`, `blobs/` and `manifest.json.gz`."""

    folder: Path

    @property
    def bootstrap(self) -> Path:
        """What `--bootstrap` is given: the blob itself where the bootstrap lies inlined in it."""
        alone = self.folder / "bootstrap"
        return alone if alone.exists() else self.blob

    @property
    def blobs(self) -> Path:
        """The folder of blobs; an image without data may have none."""
        return self.folder / "blobs"

    @property
    def blob(self) -> Path:
        """The only blob of the image."""
        (blob,) = self.blobs.iterdir()
        return blob

    @property
    def manifest(self) -> Manifest:
        """What a mount of it must show."""
        return load_manifest(self.folder / "manifest.json.gz")
