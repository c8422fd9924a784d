"""Images that a build refers to: the parent below a layer, or a chunk dictionary."""

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from nydusd.base.errors import BootstrapError, BuildError, UnsupportedError
from nydusd.build.create_options import CreateOptions
from nydusd.build.node import ROOT_NAME
from nydusd.rafs.blobs import (
    TAR_HEADER_SIZE,
    BlobFeature,
    BlobInfo,
    SuperblockFlag,
    algorithms_of_flags,
)
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.chunk_records import chunk_table, place_of, record_of_span
from nydusd.rafs.load import load_bootstrap
from nydusd.rafs.records import Span
from nydusd.rafs.toc import TOC_SECTION, parse_tar_header
from nydusd.rafs.write_tree import TreeNode

NOT_YET = BlobFeature.ENCRYPTED | BlobFeature.TARFS | BlobFeature.EXTERNAL


class OtherImage:
    """The image of a bootstrap (or of a blob that holds one), fit for a build with *options*.

    `BuildError` when its settings do not go with those of the build.
    """

    def __init__(self, path: Path, options: CreateOptions) -> None:
        self.path = path
        self.options = options
        try:
            self.bootstrap: Bootstrap = load_bootstrap(path)
        except OSError as exc:
            raise BuildError(f"{path}: {exc.strerror}") from exc
        self._demand_same_settings()
        self.blobs = [self._listed(blob) for blob in self.bootstrap.blobs]
        self._table: dict[tuple[int, int], bytes] | None = None

    def _demand_same_settings(self) -> None:
        options, bootstrap = self.options, self.bootstrap
        explicit = bool(bootstrap.flags & SuperblockFlag.EXPLICIT_UID_GID)
        digester = algorithms_of_flags(bootstrap.version, bootstrap.flags).digester
        pairs: list[tuple[str, object, object]] = [
            ("RAFS version", bootstrap.version, options.version),
            ("chunk size", bootstrap.chunk_size, options.chunk_size),
            ("explicit owners", explicit, options.explicit_uid_gid),
        ]
        if options.version == 5:
            pairs.append(("digester", digester.name.lower(), options.digester.name.lower()))
        for what, theirs, ours in pairs:
            if theirs != ours:
                raise BuildError(f"{self.path}: its {what} is {theirs}, this build's is {ours}")

    def _listed(self, blob: BlobInfo) -> BlobInfo:
        """*blob* as another image's blob table lists it: with its real id, nothing inlined."""
        if blob.features & NOT_YET:
            raise UnsupportedError(
                f"{self.path}: blob {blob.blob_id} is encrypted, a tar or external: "
                "referring to such blobs is not in this version yet"
            )
        if not blob.features & BlobFeature.INLINED_FS_META:
            return blob
        file = self._file_of(blob.meta_blob_id)
        size = file.stat().st_size
        listed = blob._replace(features=blob.features & ~BlobFeature.INLINED_FS_META)
        if blob.features & BlobFeature.SEPARATE:
            listed = listed._replace(meta_size=size)
        else:
            listed = listed._replace(compressed_size=size)
        if blob.features & BlobFeature.HAS_TOC:
            toc = stored_toc(file)
            listed = listed._replace(
                toc_size=len(toc), toc_digest=hashlib.sha256(toc).digest() if toc else b""
            )
        return listed

    def _file_of(self, blob_id: str) -> Path:
        places = [self.path.parent / blob_id]
        if self.options.blob_dir is not None:
            places.append(self.options.blob_dir / blob_id)
        for place in places:
            if place.is_file():
                return place
        raise BuildError(
            f"{self.path}: its blob {blob_id} is needed for its size, and is not beside it"
            " nor in the blob directory (--blob-dir)"
        )

    def records(self, ino: int) -> Iterator[bytes]:
        """The chunk records of a regular file, in file order."""
        for span in self.bootstrap.chunk_spans(ino):
            yield self._record(span)

    def _record(self, span: Span) -> bytes:
        if span.digest is not None:
            return record_of_span(span)
        if self._table is None:
            self._table = {place_of(record): record for record in self.table()}
        try:
            return self._table[span.blob_index, span.chunk_index]
        except KeyError:
            raise BuildError(
                f"{self.path}: chunk {span.chunk_index} of blob {span.blob_index} is not in its "
                "chunk table"
            ) from None

    def table(self) -> list[bytes]:
        """The records of a v6 image's chunk table."""
        try:
            return chunk_table(self.bootstrap)
        except BootstrapError as exc:
            raise BuildError(f"{self.path}: {exc}") from exc

    def all_records(self) -> Iterator[bytes]:
        """The chunk records of all files, in the order of the tree, with repetitions."""
        for name in self.bootstrap.walk():
            if stat.S_ISREG(self.bootstrap.stat(name.ino).mode):
                yield from self.records(name.ino)

    def tree(self) -> tuple[TreeNode, list[tuple[TreeNode, int]]]:
        """The tree, and its regular files with their inode numbers; children are sorted."""
        bootstrap = self.bootstrap
        files: list[tuple[TreeNode, int]] = []
        nodes: dict[bytes, TreeNode] = {}
        root: TreeNode | None = None
        for path, ino in bootstrap.walk():
            parent, _, name = path.rpartition(b"/")
            node = self._node(name or ROOT_NAME, ino)
            if root is None:
                root = node
                nodes[b""] = node
                continue
            above = nodes[parent].children
            assert above is not None
            above.append(node)
            if node.children is not None:
                nodes[path] = node
            elif node.is_regular:
                files.append((node, ino))
        if root is None or root.children is None:
            raise BuildError(f"{self.path}: its root is no directory")
        return root, files

    def _node(self, name: bytes, ino: int) -> TreeNode:
        found = self.bootstrap.stat(ino)
        node = TreeNode(name, found.mode)
        node.is_lower = True
        if self.options.explicit_uid_gid:
            node.uid, node.gid = found.uid, found.gid
        node.rdev = found.rdev
        node.mtime, node.mtime_nsec = found.mtime, found.mtime_nsec
        node.xattrs = sorted(self.bootstrap.xattrs(ino).items())
        if stat.S_ISLNK(found.mode):
            node.target = self.bootstrap.target(ino)
        if node.children is None:
            node.size = found.size
            if found.nlink > 1:
                node.identity = ino
        return node


def stored_toc(blob: Path) -> bytes:
    """The table of contents at the end of *blob* with its tar header; empty when there is none."""
    with blob.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - TAR_HEADER_SIZE))
        header = parse_tar_header(file.read(TAR_HEADER_SIZE))
        if header is None or header[0] != TOC_SECTION or header[1] > size - TAR_HEADER_SIZE:
            return b""
        file.seek(size - TAR_HEADER_SIZE - header[1])
        return file.read()
