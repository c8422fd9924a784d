"""`nydus-image check`: read all metadata of an image and tell what is wrong, line by line.

Nothing recurses and nothing aborts: whatever a file holds, each fault becomes one finding and the
walk (`check_tree`) goes on with the next name. Where the tables have faults they alone are told, as
nothing that they lead to can be trusted. With blobs at hand what they hold beside their data
is looked at as well (`check_blobs`). Time and memory are bounded by the size of the files.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from nydusd.base.errors import BootstrapError
from nydusd.build.check_blobs import check_blobs
from nydusd.build.check_tree import TreeCheck
from nydusd.build.node import shown
from nydusd.rafs.blobs import BlobFeature, BlobInfo
from nydusd.rafs.load import load_bootstrap, table_faults

FINDINGS_MAX = 1000  # a file of noise has one at every place
FINDING_LENGTH_MAX = 4000  # characters
# How the reference's check calls the features of a blob, in its order.
FEATURE_WORDS = {
    BlobFeature.ALIGNED: "aligned",
    BlobFeature.CAP_TAR_TOC: "cap_toc",
    BlobFeature.INLINED_CHUNK_DIGEST: "chunk-digest",
    BlobFeature.CHUNK_INFO_V2: "chunk-v2",
    BlobFeature.INLINED_FS_META: "fs-meta",
    BlobFeature.SEPARATE: "separate",
    BlobFeature.HAS_TAR_HEADER: "tar-header",
    BlobFeature.HAS_TOC: "toc",
    BlobFeature.ZRAN: "zran",
    BlobFeature.BATCH: "batch",
    BlobFeature.ENCRYPTED: "encrypted",
    BlobFeature.TARFS: "tarfs",
    BlobFeature.EXTERNAL: "external",
}


@dataclass(slots=True)
class CheckReport:
    """What a check found; the image is good when there are no *findings*."""

    blobs: list[BlobInfo] = field(default_factory=list)
    names: int = 0  # root and every hard link included
    findings: list[str] = field(default_factory=list)

    @property
    def full(self) -> bool:
        """Whether there are more findings than are told, so that a check can end."""
        return len(self.findings) > FINDINGS_MAX

    def add(self, where: bytes, what: object) -> None:
        """One more finding, about the path *where*."""
        self.add_line(f"{shown(where)}: {what}")

    def add_line(self, line: str) -> None:
        """One more finding, in its own words."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(line[:FINDING_LENGTH_MAX])
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append(f"more than {FINDINGS_MAX} findings: the check ends here")


def feature_words(features: BlobFeature) -> str:
    """*features* as the reference's check prints them."""
    return " ".join(word for feature, word in FEATURE_WORDS.items() if features & feature)


def blob_line(blob: BlobInfo) -> str:
    """The line that check prints for *blob*."""
    return (
        f"{blob.blob_index}: {blob.blob_id}, compressed data size {blob.data_size:#x}, "
        f"compressed file size {blob.compressed_size:#x}, "
        f"uncompressed file size {blob.uncompressed_size:#x}, chunks: {blob.chunk_count:#x}, "
        f"features: {feature_words(blob.features)}"
    )


def faults_of_tables(path: Path) -> list[str]:
    """A line for each fault of the tables of *path*, which a mount refuses for the first of them.

    [] when something else is wrong with it.
    """
    try:
        return table_faults(path)
    except BootstrapError:
        return []


def check_image(
    path: Path, blob_dir: Path | None = None, tell: Callable[[str], None] | None = None
) -> CheckReport:
    """What is wrong with the image whose bootstrap (or blob with one) is *path*.

    A bare name that is no file is looked for in *blob_dir*. `OSError` when nothing can be read.
    """
    if blob_dir is not None and not path.exists():
        path = blob_dir / path
    report = CheckReport()
    try:
        bootstrap = load_bootstrap(path)
    except BootstrapError as exc:
        for line in faults_of_tables(path) or [str(exc)]:
            report.add_line(line)
        return report
    report.blobs = bootstrap.blobs
    try:
        tree = TreeCheck(bootstrap, report, tell)
    except MemoryError:
        report.findings.append(f"{path}: so large that this machine has no memory to check it")
        return report
    tree.run()
    report.names = tree.names
    if blob_dir is not None:
        check_blobs(report.blobs, tree.chunks, report, blob_dir)
    return report
