"""Images of the reference's builder read back through a mount: every attribute, every byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.images import GOLDEN, LAYERS, Image
from tests.system.readback import differences

pytestmark = [pytest.mark.root, pytest.mark.fuse]

# How a mount may keep data: the arguments of `serve`.
CACHES = {
    "blobcache": {},
    "dummycache": {"cache": None},
    "compressed": {"compressed": True},
    "validated": {"validate": True},
    "encrypted": {"key": bytes(range(32)).hex()},
}
REFERENCE = [
    "v5-lz4_block-sha256-0x10000",
    "v5-nodata",
    "v5-parent-oci",
    "v5-tiny",
    "v6-batch-0x100000",
    "v6-bigxattr",
    "v6-default",
    "v6-encrypt-tiny",
    "v6-estargz-ref",
    "v6-merge-targz-ref",
    "v6-inline-toc-tiny",
    "v6-many-chunks",
    "v6-merge-tarfs",
    "v6-nodata",
    "v6-parent-oci",
    "v6-targz-ref",
    "v6-tiny",
    "v6-wh-none",
]
HUGE = ["v5-huge", "v6-huge"]
SHOWN = 20  # differences in a failure's message


def assert_reads_back(serve, image, now, caches):
    """Mount *image* twice, with an empty cache and with what the first mount left."""
    manifest = image.manifest
    for state in ("cold", "warm"):
        daemon = serve(image, **CACHES[caches])
        with daemon:
            found = differences(daemon.mountpoint, manifest, now)
            assert not found, "\n".join([f"{state}:", *found[:SHOWN], daemon.text])
        assert daemon.wait() == 0, daemon.text


def allows(name: str, caches: str) -> bool:
    """Whether an image can be kept so: chunks of v5 have no pages of their own to encrypt."""
    return not (caches == "encrypted" and name.startswith("v5"))


def kinds(names):
    """Each image with every kind of cache that allows it."""
    return [(name, caches) for name in names for caches in CACHES if allows(name, caches)]


@pytest.mark.parametrize(
    ("name", "caches"), kinds(sorted(path.name for path in GOLDEN.iterdir() if path.is_dir()))
)
def test_a_golden_image_reads_back_cold_and_warm(serve, now, name, caches):
    assert_reads_back(serve, Image(GOLDEN / name), now, caches)


@pytest.mark.parametrize("caches", CACHES)
@pytest.mark.parametrize("name", sorted(path.name for path in LAYERS.iterdir() if path.is_dir()))
def test_a_reference_to_a_layer_reads_back_cold_and_warm(serve, now, name, caches):
    assert_reads_back(serve, Image(LAYERS / name), now, caches)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("name", "caches"), kinds(REFERENCE))
def test_a_reference_image_reads_back_cold_and_warm(serve, now, reference_images, name, caches):
    assert_reads_back(serve, Image(reference_images / name), now, caches)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("caches", ["blobcache", "compressed"])
@pytest.mark.parametrize("name", HUGE)
def test_a_file_over_4_gib_reads_back_cold_and_warm(serve, now, reference_images, name, caches):
    assert_reads_back(serve, Image(reference_images / name), now, caches)


def test_a_warm_cache_needs_no_data_of_the_blob(serve, now, tmp_path: Path):
    image = Image(GOLDEN / "v6-zstd")
    with serve(image) as daemon:
        assert not differences(daemon.mountpoint, image.manifest, now)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    (blobs / image.blob.name).write_bytes(bytes(image.blob.stat().st_size))

    with serve(image, blobs=blobs) as daemon:
        assert not differences(daemon.mountpoint, image.manifest, now)
