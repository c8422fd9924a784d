"""`nydus-image check`: read all metadata of an image and tell what is wrong, line by line.

Nothing recurses and nothing aborts: whatever a file holds, each fault becomes one finding and the
walk goes on with the next name. Data is not read.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nydusd.base.errors import BootstrapError, NydusError
from nydusd.build.node import shown
from nydusd.rafs.blobs import BlobFeature, BlobInfo
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.load import load_bootstrap
from nydusd.rafs.read_v5 import BootstrapV5
from nydusd.rafs.records import Entry, Stat

FINDINGS_MAX = 1000  # a file of noise has one at every place
KIND_SHIFT = 12
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

    def add(self, where: bytes, what: object) -> None:
        """One more finding, about the path *where*."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(f"{shown(where)}: {what}")
        elif len(self.findings) == FINDINGS_MAX:
            self.findings.append(f"more than {FINDINGS_MAX} findings: the rest is not shown")


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


@dataclass(slots=True)
class _OpenDirectory:
    """A directory on the way of the walk."""

    ino: int
    path: bytes  # without a slash at its end
    entries: Iterator[Entry]
    parent: int
    last: bytes | None = None  # name before


class ImageCheck:
    """One walk through all of *bootstrap*; *tell* is given a line for each inode and chunk."""

    def __init__(
        self, bootstrap: Bootstrap, report: CheckReport, tell: Callable[[str], None] | None
    ) -> None:
        self.bootstrap = bootstrap
        self.report = report
        self.tell = tell
        self._seen: set[int] = set()  # directories

    def run(self) -> None:
        """Walk; findings go to the report."""
        root = self.bootstrap.root_ino
        found = self._inode(b"/", root)
        if found is None:
            return
        if not stat.S_ISDIR(found.mode):
            self.report.add(b"/", f"the root is no directory: mode {found.mode:#o}")
            return
        stack = [self._open(b"", root, root)]
        while stack:
            here = stack[-1]
            try:
                entry = next(here.entries)
            except StopIteration:
                stack.pop()
                continue
            except (OSError, NydusError) as exc:
                self.report.add(here.path or b"/", exc)
                stack.pop()
                continue
            below = self._entry(here, entry)
            if below is not None:
                stack.append(below)

    def _open(self, path: bytes, ino: int, parent: int) -> _OpenDirectory:
        self._seen.add(ino)
        if isinstance(self.bootstrap, BootstrapV5):
            try:
                self.bootstrap.verify_directory(ino)
            except (OSError, NydusError) as exc:
                self.report.add(path or b"/", exc)
        return _OpenDirectory(ino, path, self.bootstrap.iter_entries(ino), parent)

    def _entry(self, here: _OpenDirectory, entry: Entry) -> _OpenDirectory | None:
        """Check one name; the directory to go into, if it is one."""
        path = here.path + b"/" + entry.name
        if entry.name in (b".", b".."):
            right = here.ino if entry.name == b"." else here.parent
            if entry.ino != right:
                self.report.add(path, f"leads to inode {entry.ino} instead of {right}")
            return None
        if here.last is not None and entry.name <= here.last:
            self.report.add(path, f"stands behind {shown(here.last)}: lookups may miss it")
        here.last = entry.name
        found = self._inode(path, entry.ino)
        if found is None:
            return None
        if entry.kind and entry.kind != found.mode >> KIND_SHIFT:
            self.report.add(path, f"its directory says type {entry.kind}, it has {found.mode:#o}")
        if not stat.S_ISDIR(found.mode):
            return None
        if entry.ino in self._seen:
            self.report.add(path, f"directory inode {entry.ino} has another place in the tree")
            return None
        return self._open(path, entry.ino, here.ino)

    def _inode(self, path: bytes, ino: int) -> Stat | None:
        """Check one inode, whatever its type; None when it cannot be read."""
        self.report.names += 1
        try:
            found = self.bootstrap.stat(ino)
        except (OSError, NydusError) as exc:
            self.report.add(path, exc)
            return None
        if self.tell is not None:
            self.tell(
                f"inode: {shown(path)}: ino {found.ino} mode {found.mode:#o} nlink {found.nlink} "
                f"uid {found.uid} gid {found.gid} size {found.size} blocks {found.blocks} "
                f"mtime {found.mtime}.{found.mtime_nsec:09d} rdev {found.rdev:#x}"
            )
        try:
            self.bootstrap.xattrs(ino)
            if stat.S_ISLNK(found.mode):
                target = self.bootstrap.target(ino)
                if len(target) != found.size:
                    self.report.add(path, f"{len(target)} bytes of target, size {found.size}")
            elif stat.S_ISREG(found.mode):
                self._chunks(path, ino, found.size)
        except (OSError, NydusError) as exc:
            self.report.add(path, exc)
        return found

    def _chunks(self, path: bytes, ino: int, size: int) -> None:
        """Check that the chunks of a file exist and make up its size."""
        blobs = self.bootstrap.blobs
        covered = 0
        for span in self.bootstrap.chunk_spans(ino):
            covered += span.length
            if span.flags & 1:  # a hole
                continue
            if self.tell is not None:
                self.tell(
                    f"\t chunk: blob {span.blob_index} index {span.chunk_index} "
                    f"uncompressed offset {span.uncompressed_offset:#x} length {span.length:#x}"
                )
            if span.blob_index >= len(blobs):
                self.report.add(path, f"a chunk in blob {span.blob_index} of {len(blobs)}")
                return
            count = blobs[span.blob_index].chunk_count
            if count and span.chunk_index >= count:
                self.report.add(path, f"chunk {span.chunk_index} of a blob of {count} chunks")
                return
        if covered != size:
            self.report.add(path, f"its chunks have {covered} bytes, it has {size}")


def check_blob_files(report: CheckReport, directory: Path) -> None:
    """Findings for blobs of *directory* whose size is not what the image says."""
    for blob in report.blobs:
        try:
            size = (directory / blob.blob_id).stat().st_size
        except FileNotFoundError:
            continue  # a parent's or dictionary's blob may be elsewhere
        if size < blob.data_size:
            report.add(
                os.fsencode(directory / blob.blob_id),
                f"has {size} bytes, its image needs {blob.data_size}",
            )


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
        report.findings.append(str(exc))
        return report
    report.blobs = bootstrap.blobs
    ImageCheck(bootstrap, report, tell).run()
    if blob_dir is not None:
        check_blob_files(report, blob_dir)
    return report
