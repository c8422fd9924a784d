"""Chunk dictionaries: chunks of another image that a build refers to instead of storing its own."""

import logging
from pathlib import Path

from nydusd.build.create_options import CreateOptions
from nydusd.build.other_image import OtherImage
from nydusd.rafs.blobs import BlobInfo, SuperblockFlag, algorithms_of_flags
from nydusd.rafs.chunk_records import digest_and_size, place_of, record_in_blob
from nydusd.rafs.write_chunks import ChunkTable

logger = logging.getLogger("nydusd")


class ChunkDictionary:
    """Known chunks by digest, and which of their blobs the new image lists already."""

    def __init__(self, path: Path, options: CreateOptions) -> None:
        image = OtherImage(path, options)
        self.blobs = image.blobs
        self._records: dict[bytes, tuple[int, bytes]] = {}  # digest -> plain size, record
        self._adopted: set[bytes] = set()
        digester = algorithms_of_flags(image.bootstrap.version, image.bootstrap.flags).digester
        if digester != options.digester:
            logger.warning(
                "%s: its digests are %s, this build's %s: none of its chunks will be found",
                path,
                digester.name.lower(),
                options.digester.name.lower(),
            )
            return
        by_tree = options.version == 5 or image.bootstrap.flags & (
            SuperblockFlag.INLINED_CHUNK_DIGEST
        )
        for record in image.all_records() if by_tree else image.table():
            digest, size = digest_and_size(record)
            self._records.setdefault(digest, (size, record))

    def adopt(self, digest: bytes, size: int, chunks: ChunkTable, blobs: list[BlobInfo]) -> bool:
        """Whether the dictionary has this chunk, which *chunks* then knows.

        A blob gets its place at the end of *blobs* with the first of its chunks that is used.
        """
        if digest in self._adopted:
            return True
        found = self._records.get(digest)
        if found is None or found[0] != size:
            return False
        blob = self.blobs[place_of(found[1])[0]]
        index = next(
            (number for number, known in enumerate(blobs) if known.blob_id == blob.blob_id), None
        )
        if index is None:
            index = len(blobs)
            blobs.append(blob._replace(blob_index=index))
        chunks.add_record(record_in_blob(found[1], index), first_choice=True)
        self._adopted.add(digest)
        return True
