"""What the blobs of an image hold beside their data, held against its bootstrap, for the checker.

Tables are read whole, one blob after another; a table of more than `TABLE_BYTES_MAX` is a finding
and is not read. Data is not read, so that a check takes the same time for any blob.
"""

import os
from contextlib import closing
from pathlib import Path
from typing import Protocol

from nydusd.backend.interface import BlobReader
from nydusd.backend.localfs import LocalFsReader
from nydusd.base.errors import NydusError
from nydusd.base.mapping import Mapping
from nydusd.build.check_chunks import MetChunks, compare_with_meta
from nydusd.cache.sidecars import DIGEST_BYTES, DIGEST_SECTION, read_blob_meta, read_range
from nydusd.rafs.blobmeta import BlobMeta
from nydusd.rafs.blobs import BlobFeature, BlobInfo, Compressor
from nydusd.rafs.toc import (
    CI_HEADER_SECTION,
    CI_SECTION,
    Section,
    check_stored_toc,
    find_sections,
    open_section,
    tail_size,
)

TABLE_BYTES_MAX = 96 << 20  # plain; four million chunks


class Report(Protocol):
    """Where findings go."""

    @property
    def full(self) -> bool:
        """Whether no more are wanted."""

    def add(self, where: bytes, what: object) -> None:
        """One more, about the path *where*."""


def check_blobs(blobs: list[BlobInfo], chunks: MetChunks, report: Report, directory: Path) -> None:
    """Findings about the blobs of an image that lie in *directory*; others are not looked at.

    *chunks* are those that the bootstrap tells of.
    """
    for blob in blobs:
        if report.full:
            return
        data = directory / blob.blob_id
        where = os.fsencode(data)
        try:
            size = data.stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            size = None  # a parent's or dictionary's blob may be elsewhere
        if size is not None and size < blob.data_size:
            report.add(where, f"has {size} bytes, its image needs {blob.data_size}")
            continue
        meta = directory / blob.meta_blob_id
        if blob.version == 5 or not meta.is_file():
            continue
        try:
            with closing(LocalFsReader(meta)) as reader:
                _check_table(blob, chunks, report, reader, os.fsencode(meta))
                _check_toc(blob, report, reader, os.fsencode(meta))
        except (OSError, NydusError) as exc:
            report.add(os.fsencode(meta), exc)


def _check_table(
    blob: BlobInfo, chunks: MetChunks, report: Report, reader: BlobReader, where: bytes
) -> None:
    """The table of chunks is the one of the bootstrap, and so is each entry."""
    if not blob.ci_compressed_size or blob.features & BlobFeature.TARFS:
        return
    if blob.ci_uncompressed_size > TABLE_BYTES_MAX:
        report.add(where, f"its table of chunks has {blob.ci_uncompressed_size} bytes: not read")
        return
    plain, header = read_blob_meta(blob, reader)
    meta = BlobMeta(Mapping.of_bytes(plain), blob, header)
    for line in compare_with_meta(chunks, meta, blob.blob_index):
        report.add(where, line)


def _check_toc(blob: BlobInfo, report: Report, reader: BlobReader, where: bytes) -> None:
    """The table of contents has the digest that the bootstrap tells, and its sections theirs."""
    size = reader.size()
    wanted = blob.toc_size or tail_size(size)
    if wanted > min(size, TABLE_BYTES_MAX):
        report.add(where, f"has {size} bytes, {wanted} of them a table of contents")
        return
    tail = read_range(reader, size - wanted, wanted)
    if blob.toc_size:
        check_stored_toc(tail, blob.toc_digest)
    for name, section in find_sections(tail, size).items():
        if name == "image.blob" or not section.digest:
            continue
        if max(section.compressed_size, section.uncompressed_size) > TABLE_BYTES_MAX:
            report.add(where, f"{name} has {section.uncompressed_size} bytes: not read")
            continue
        try:
            if blob.features & BlobFeature.ENCRYPTED and name in (CI_SECTION, CI_HEADER_SECTION):
                _check_encrypted_section(blob, section, reader)
            else:
                open_section(section, read_range(reader, section.offset, section.compressed_size))
        except NydusError as exc:
            report.add(where, exc)
        expected = blob.chunk_count * DIGEST_BYTES
        if name == DIGEST_SECTION and section.uncompressed_size != expected:
            report.add(
                where,
                f"its digests of chunks have {section.uncompressed_size} bytes, "
                f"{blob.chunk_count} chunks need {expected}",
            )


def _check_encrypted_section(blob: BlobInfo, section: Section, reader: BlobReader) -> None:
    """`BlobCorrupt` unless *section*, the table of chunks or its header, is as its entry tells.

    Both are stored encrypted; the entry has the size and the digest of the plain bytes.
    """
    if blob.ci_uncompressed_size > TABLE_BYTES_MAX:
        return  # a finding already
    array, header = read_blob_meta(blob, reader)
    plain = header if section.name == CI_HEADER_SECTION else array
    entry = Section(
        section.name,
        Compressor.NONE,
        section.offset,
        len(plain),
        section.uncompressed_size,
        section.digest,
    )
    open_section(entry, plain)
