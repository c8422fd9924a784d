"""An image read back: its tree through our reader, its data straight from the blob."""

import stat
from pathlib import Path

from nydusd.codec.compression import decompress
from nydusd.rafs.blobs import Compressor
from nydusd.rafs.bootstrap import Bootstrap
from nydusd.rafs.chunk_records import chunk_table, place_of, record_of_span
from nydusd.rafs.load import load_bootstrap
from tests.build.ondisk import ChunkFields
from tests.strategies import SECOND_NS, Tree


class ImageReader:
    """The tree and the files of one image whose only blob is *blob*."""

    def __init__(self, bootstrap: Path, blob: Path) -> None:
        self.bootstrap: Bootstrap = load_bootstrap(bootstrap)
        self.data = blob.read_bytes()
        self.records = {}
        if self.bootstrap.version == 6:
            self.records = {place_of(record): record for record in chunk_table(self.bootstrap)}

    def content(self, ino: int) -> bytes:
        compressor = self.bootstrap.blobs[0].compressor if self.bootstrap.blobs else Compressor.NONE
        pieces = []
        for span in self.bootstrap.chunk_spans(ino):
            record = self.records.get((span.blob_index, span.chunk_index))
            chunk = ChunkFields(record if record is not None else record_of_span(span))
            stored = self.data[chunk.compressed_offset :][: chunk.compressed_size]
            plain = stored
            if chunk.is_compressed:
                plain = decompress(int(compressor), stored, chunk.uncompressed_size)
            pieces.append(plain[span.offset : span.offset + span.length])
        return b"".join(pieces)

    def tree(self) -> Tree:
        """What the image shows."""
        nodes: dict[bytes, Tree] = {}
        for path, ino in self.bootstrap.walk():
            found = self.bootstrap.stat(ino)
            node = Tree(found.mode, found.mtime * SECOND_NS + found.mtime_nsec)
            if stat.S_ISREG(found.mode):
                node.content = self.content(ino)
                assert len(node.content) == found.size
            elif stat.S_ISLNK(found.mode):
                node.content = self.bootstrap.target(ino)
            parent, _, name = path.rpartition(b"/")
            if name:
                nodes[parent].children[name] = node
            nodes[path if name else b""] = node
        return nodes[b""]
