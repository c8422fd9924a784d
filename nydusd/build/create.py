"""`nydus-image create`: a directory to a bootstrap and a data blob."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from nydusd.build.chunkdict import ChunkDictionary
from nydusd.build.create_options import CreateOptions
from nydusd.build.from_directory import tree_from_directory
from nydusd.build.meta_compression import compress_meta
from nydusd.build.other_image import OtherImage
from nydusd.build.output import OutputFile
from nydusd.build.overlay import is_whiteout, merge_layers, take_opaque_mark
from nydusd.build.pack import BlobWriter, Packer, Progress
from nydusd.build.prefetch import PrefetchPlan, PrefetchPolicy, plan_prefetch, read_patterns
from nydusd.codec.digest import digest_of
from nydusd.rafs.blobs import (
    TAR_HEADER_SIZE,
    BlobFeature,
    BlobInfo,
    Compressor,
    Digester,
)
from nydusd.rafs.toc import (
    BOOTSTRAP_SECTION,
    CI_HEADER_SECTION,
    CI_SECTION,
    DIGEST_SECTION,
    TOC_SECTION,
)
from nydusd.rafs.write_blob import BLOB_SECTION, ci_header, tar_header, toc_entry
from nydusd.rafs.write_chunks import ChunkTable
from nydusd.rafs.write_tree import TreeNode, number_nodes
from nydusd.rafs.write_v5 import write_v5
from nydusd.rafs.write_v6 import write_v6
from nydusd.rafs.writing import ImageSettings

INLINE_BLOB_ID = "x" * 64  # a bootstrap inside of its blob cannot tell the blob's id
V6_ALIGNMENT = 4096
READAHEAD_MAX = (1 << 32) - 1


@dataclass(frozen=True, slots=True)
class BuildResult:
    """What a build made."""

    blobs: list[str]  # ids, in blob table order
    blob_size: int | None  # bytes of the new blob file; None when no data needed one
    bootstrap: Path | None  # None when it lies in the blob


class ImageBuild:
    """One build from its first look at the source to its last byte; used once, by one thread."""

    def __init__(self, options: CreateOptions, progress: Progress | None = None) -> None:
        self.options = options
        self.progress = progress or Progress()
        aligned = options.version == 6 or options.aligned_chunk
        self.chunks = ChunkTable(V6_ALIGNMENT if aligned else 1)
        self.blobs: list[BlobInfo] = []  # of parent and dictionary
        self.toc: list[bytes] = []
        self.own: BlobInfo | None = None
        self.prefetch_bytes = 0
        self.dictionary: ChunkDictionary | None = None

    def run(self) -> BuildResult:
        """Build the image; `BuildError` for all that can go wrong with its parts."""
        options = self.options
        with OutputFile(options.blob, options.blob_dir) as output:
            root = self._tree(output.temporary)
            if options.chunk_dict is not None:
                self.dictionary = ChunkDictionary(options.chunk_dict, options)
            nodes = number_nodes(root, options.revision.link_specials)
            plan = plan_prefetch(
                root,
                read_patterns(options.prefetch_patterns, options.revision.prefetch_by_pattern),
                options.revision.prefetch_by_pattern,
            )
            writer = BlobWriter(output)
            try:
                self._pack(nodes, plan, writer)
                self._end_data(writer)
                bootstrap = b""
                if options.inline_meta:
                    bootstrap = self._bootstrap(root, nodes, plan, self._described(writer, True))
                    self._inline(bootstrap, writer)
                self._end_blob(writer)
            finally:
                writer.close()
            blobs = self._described(writer, False)
            if options.inline_meta:
                self._finish(output, blobs)
                path = None
            else:
                bootstrap = self._bootstrap(root, nodes, plan, blobs)
                with OutputFile(options.bootstrap, options.blob_dir) as metadata:
                    metadata.write([bootstrap])
                    self._finish(output, blobs)  # not before both are complete
                    path = metadata.finish(hashlib.sha256(bootstrap).hexdigest())
            return BuildResult(
                [blob.blob_id for blob in blobs], writer.size if self.own else None, path
            )

    def _finish(self, output: OutputFile, blobs: list[BlobInfo]) -> None:
        """Give the blob its name; without data there is an empty file where one was asked for."""
        if self.own is not None:
            output.finish(blobs[self.own.blob_index].blob_id)
        elif self.options.blob is not None:
            output.finish("")

    def _tree(self, output: Path | None) -> TreeNode:
        """What the image will hold; *output*, a file that this build writes, is no part of it."""
        options = self.options
        own_path = os.fsencode(output) if output is not None else None
        spec = options.whiteout_spec
        layered = options.parent_bootstrap is not None

        def is_left_out(node: TreeNode) -> bool:
            if node.path == own_path:
                return True
            take_opaque_mark(node, spec)
            return not layered and is_whiteout(node, spec)

        source = os.fsencode(options.source.resolve())
        root = tree_from_directory(source, options.explicit_uid_gid, is_left_out)
        if options.parent_bootstrap is not None:
            root = merge_layers(
                self._parent(options.parent_bootstrap),
                root,
                spec,
                root_from_upper=options.revision.root_from_upper,
            )
        return root

    def _parent(self, path: Path) -> TreeNode:
        """The tree of the image below, its blobs and chunks taken over."""
        image = OtherImage(path, self.options)
        self.blobs.extend(image.blobs)
        root, files = image.tree()
        numbers: dict[bytes, int] = {}
        for node, ino in files:
            node.first_reference = self.chunks.reference_total
            for record in image.records(ino):
                number = numbers.get(record)
                if number is None:
                    number = numbers[record] = self.chunks.add_record(record)
                self.chunks.refer(number)
            node.chunk_count = self.chunks.reference_total - node.first_reference
        return root

    def _pack(self, nodes: list[TreeNode], plan: PrefetchPlan, writer: BlobWriter) -> None:
        options = self.options
        packer = Packer(
            self.chunks,
            writer,
            chunk_size=options.chunk_size,
            compressor=options.compressor,
            digester=options.digester,
            chunk_crc=options.revision.chunk_crc,
            add_chunks=self._add_chunks,
            progress=self.progress,
        )
        packed: dict[object, TreeNode] = {}
        others: list[TreeNode] = []

        def unpacked(files: list[TreeNode]) -> list[TreeNode]:
            wanted = []
            for node in files:
                if node.size == 0 or node.is_lower or not node.is_regular:
                    continue
                if node.identity is None or packed.setdefault(node.identity, node) is node:
                    wanted.append(node)
                else:
                    others.append(node)
            return wanted

        first = unpacked(plan.files)
        if first:
            packer.pack(first)
            self.prefetch_bytes = self.chunks.compressed_end
        chosen = {node.index for node in plan.files}
        packer.pack(unpacked([node for node in nodes if node.index not in chosen]))
        for node in others:
            node.first_reference = packed[node.identity].first_reference
            node.chunk_count = packed[node.identity].chunk_count

    def _add_chunks(
        self, digests: list[bytes], sizes: list[int], crcs: list[int] | None
    ) -> list[int]:
        if self.dictionary is not None or self.own is None:
            for digest, size in zip(digests, sizes, strict=True):
                if self.dictionary is not None and self.dictionary.adopt(
                    digest, size, self.chunks, self.blobs
                ):
                    continue
                if self.own is None and self.chunks.find(digest, size) is None:
                    self._claim_own_blob()
                if self.dictionary is None and self.own is not None:
                    break
        return self.chunks.add_chunks(digests, sizes, crcs)

    def _claim_own_blob(self) -> None:
        options = self.options
        self.chunks.claim_own_blob(len(self.blobs))
        features = BlobFeature.CAP_TAR_TOC
        if options.inline_meta:
            features |= BlobFeature.INLINED_FS_META | BlobFeature.HAS_TAR_HEADER
        if options.blob_toc:
            features |= BlobFeature.HAS_TOC | BlobFeature.HAS_TAR_HEADER
        self.own = BlobInfo(
            blob_index=len(self.blobs),
            blob_id=options.blob_id,
            meta_blob_id=options.blob_id,
            chunk_size=options.chunk_size,
            chunk_count=0,
            compressor=options.compressor,
            digester=options.digester,
            features=features,
            compressed_size=0,
            data_size=0,
            uncompressed_size=0,
        )
        self.blobs.append(self.own)

    def _section(self, name: str, data: bytes, writer: BlobWriter, *, in_id: bool = True) -> None:
        """Append a section and, where sections are headed, the tar header behind it."""
        writer.write([data], in_id=in_id)
        assert self.own is not None
        if self.own.features & BlobFeature.HAS_TAR_HEADER:
            writer.write([tar_header(name, len(data))])

    def _end_data(self, writer: BlobWriter) -> None:
        """What follows the chunk data: its header, the CI array, the digests."""
        if self.own is None:
            return
        chunks, options = self.chunks, self.options
        features = self.own.features
        data_size = writer.size
        if features & BlobFeature.HAS_TAR_HEADER:
            writer.write([tar_header(BLOB_SECTION, data_size)])
        if options.blob_toc:
            writer.flush()
            self.toc.append(
                toc_entry(
                    BLOB_SECTION,
                    Compressor.NONE,
                    writer.hash.digest(),
                    0,
                    data_size,
                    chunks.uncompressed_end,
                )
            )
        self.own = self.own._replace(
            chunk_count=chunks.own_chunk_count,
            uncompressed_size=chunks.uncompressed_end,
            data_size=data_size,
        )
        if options.version == 6:
            self._write_meta(writer)

    def _write_meta(self, writer: BlobWriter) -> None:
        assert self.own is not None
        chunks, options = self.chunks, self.options
        features = self.own.features | BlobFeature.ALIGNED
        if options.blob_toc:
            features |= BlobFeature.INLINED_CHUNK_DIGEST
        plain = chunks.ci_array()
        follows = options.revision.ci_follows_compressor
        compressor, stored = compress_meta(
            options.compressor if follows else Compressor.ZSTD, plain
        )
        offset = writer.size
        header = ci_header(
            int(features),
            int(compressor),
            chunks.own_chunk_count,
            offset,
            len(stored),
            len(plain),
        )
        self.own = self.own._replace(
            features=features,
            ci_compressor=compressor,
            ci_offset=offset,
            ci_compressed_size=len(stored),
            ci_uncompressed_size=len(plain),
        )
        self._section(CI_SECTION, stored + header, writer)
        if options.blob_toc:
            self._toc_of(CI_SECTION, compressor, plain, offset, len(stored))
            self._toc_of(
                CI_HEADER_SECTION, Compressor.NONE, header, offset + len(stored), len(header)
            )
            digests = chunks.digests()
            self._toc_of(DIGEST_SECTION, Compressor.NONE, digests, writer.size, len(digests))
            in_id = options.revision.digests_in_id
            self._section(DIGEST_SECTION, digests, writer, in_id=in_id)

    def _toc_of(
        self, name: str, compressor: Compressor, plain: bytes, offset: int, size: int
    ) -> None:
        digest = hashlib.sha256(plain).digest()
        self.toc.append(toc_entry(name, compressor, digest, offset, size, len(plain)))

    def _inline(self, bootstrap: bytes, writer: BlobWriter) -> None:
        """Append the bootstrap to the blob, which there is then even without data."""
        if self.own is None:
            self._claim_own_blob()
        compressor, stored = compress_meta(
            Compressor.ZSTD if self.options.blob_toc else Compressor.NONE, bootstrap
        )
        if self.options.blob_toc:
            self._toc_of(BOOTSTRAP_SECTION, compressor, bootstrap, writer.size, len(stored))
        self._section(BOOTSTRAP_SECTION, stored, writer)

    def _end_blob(self, writer: BlobWriter) -> None:
        """Append the table of contents; afterwards the blob is complete."""
        if self.own is not None and self.options.blob_toc:
            toc = b"".join(self.toc)
            header = tar_header(TOC_SECTION, len(toc))
            writer.write([toc, header])
            self.own = self.own._replace(
                toc_size=len(toc) + TAR_HEADER_SIZE,
                toc_digest=hashlib.sha256(toc + header).digest(),
            )
        writer.flush()

    def _described(self, writer: BlobWriter, inline: bool) -> list[BlobInfo]:
        """The blob table; with *inline* as a bootstrap says it that goes into the blob itself."""
        blobs = list(self.blobs)
        if self.own is None:
            return blobs
        blob_id = self.options.blob_id
        if not blob_id:
            blob_id = INLINE_BLOB_ID if inline else writer.hash.hexdigest()
        readahead = 0
        if self.options.prefetch_policy == PrefetchPolicy.BLOB:
            readahead = min(self.prefetch_bytes, READAHEAD_MAX)
        blobs[self.own.blob_index] = self.own._replace(
            blob_id=blob_id,
            meta_blob_id=blob_id,
            compressed_size=writer.size,
            prefetch_size=readahead,
        )
        return blobs

    def _bootstrap(
        self,
        root: TreeNode,
        nodes: list[TreeNode],
        plan: PrefetchPlan,
        blobs: list[BlobInfo],
    ) -> bytes:
        options = self.options
        settings = ImageSettings(
            chunk_size=options.chunk_size,
            compressor=options.compressor,
            digester=options.digester,
            explicit_uid_gid=options.explicit_uid_gid,
            is_layered=options.parent_bootstrap is not None,
            revision=options.revision,
            blobs=blobs,
        )
        table = plan.table if options.prefetch_policy == PrefetchPolicy.FS else []
        if options.version == 6:
            rows: list[TreeNode | None] = list(table)
            if table is plan.table and options.revision.prefetch_padded:
                rows += [None] * (plan.pattern_count - len(table))
            return bytes(write_v6(root, nodes, self.chunks, settings, rows))
        set_digests(nodes, self.chunks, options.digester)
        return bytes(write_v5(nodes, self.chunks, settings, table))


def set_digests(nodes: list[TreeNode], chunks: ChunkTable, digester: Digester) -> None:
    """Fill in the digest tree of v5: *nodes* in index order, so children come after parents."""
    nothing = digest_of(digester, b"")
    for node in reversed(nodes):
        if node.children is not None:
            node.digest = digest_of(digester, b"".join([child.digest for child in node.children]))
        elif node.target:
            node.digest = digest_of(digester, node.target)
        elif node.chunk_count:
            node.digest = digest_of(
                digester, chunks.file_digests(node.first_reference, node.chunk_count)
            )
        else:
            node.digest = nothing


def create_image(options: CreateOptions, progress: Progress | None = None) -> BuildResult:
    """Make the image that *options* describe; `BuildError` says why not."""
    return ImageBuild(options, progress).run()
