"""The small files beside a blob's data: `.blob.meta`, `.blob.toc`, `.blob.digest`.

Each is fetched once, verified, kept in the cache directory for the next start and for other
daemons, and held in memory alone where the directory cannot be written. Formats and rules:
rafs-format, local cache files. Any thread.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from nydusd.base.errors import BlobCorrupt
from nydusd.base.mapping import Mapping
from nydusd.cache.held_range import HeldRange
from nydusd.cache.meta_pieces import plain_pieces
from nydusd.codec.cipher import PADDED_BYTES, UNIT_BYTES, BlobCipher, unpadded
from nydusd.codec.compression import decompress
from nydusd.rafs.areas import inflates_too_much
from nydusd.rafs.blobmeta import (
    HEADER_SIZE,
    BlobMeta,
    header_difference,
    plain_file_size,
    plain_size_max,
)
from nydusd.rafs.blobs import Cipher
from nydusd.rafs.toc import check_stored_toc, find_sections, open_section, tail_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nydusd.backend.interface import BlobReader
    from nydusd.rafs.blobs import BlobInfo

logger = logging.getLogger("nydusd")

DIGEST_BYTES = 32
TOC_UNIT = 128  # bytes of an entry; the tar header behind the entries is four
TOC_BYTES_MIN = 512
TOC_BYTES_MAX = 4096
DIGEST_SECTION = "blob.digest"
SIZE_UNKNOWN = 1 << 62  # of a blob: as large as any


def read_range(reader: BlobReader, offset: int, size: int) -> bytes:
    """*size* bytes at *offset* of a blob; `BackendError` when they cannot be had."""
    buffer = bytearray(size)
    reader.read_into(buffer, offset)
    return bytes(buffer)


def cipher_of(info: BlobInfo) -> BlobCipher | None:
    """What opens the chunks and the CI array of an encrypted blob; None for one in the clear."""
    if info.cipher == Cipher.NONE:
        return None
    try:
        return BlobCipher(info.cipher_key, info.cipher_iv)
    except ValueError as exc:
        raise BlobCorrupt(f"blob {info.blob_id}: it is encrypted, but {exc}") from exc


# --- .blob.meta


def kept_blob_meta(info: BlobInfo, path: Path) -> BlobMeta | None:
    """The CI array in the cache file *path*, mapped; None when it is not (yet) this blob's."""
    size = plain_file_size(info)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if os.fstat(fd).st_size != size:
            return None
        header = os.pread(fd, HEADER_SIZE, size - HEADER_SIZE)
        if header_difference(header, info) is not None:
            return None
        return BlobMeta(Mapping(fd), info, header)
    finally:
        os.close(fd)


def fetch_blob_meta(
    info: BlobInfo,
    reader: BlobReader,
    path: Path | None,
    *,
    fresh: bool = False,
    later: list[Callable[[], None]] | None = None,
) -> BlobMeta:
    """The CI array from the blob behind *reader*, kept at *path* (None: in memory alone).

    *fresh*: what is kept there already is not trusted, and written again. What remains to be done
    for the next start, and takes a disk's time, is added to *later* when that is given.
    `BlobCorrupt` when the blob's tail is not what the blob table says of it.
    """
    if path is not None and not fresh:
        kept = kept_blob_meta(info, path)
        if kept is not None:
            return kept
    try:
        return _fetched_blob_meta(info, reader, path, later)
    except BlobCorrupt:
        # A source that lies: another one may have the table right.
        if not reader.distrust(info.ci_offset, info.ci_compressed_size + HEADER_SIZE):
            raise
    return _fetched_blob_meta(info, reader, path, later)


def _fetched_blob_meta(
    info: BlobInfo, source: BlobReader, path: Path | None, later: list[Callable[[], None]] | None
) -> BlobMeta:
    reader = HeldRange(source, info.ci_offset, info.ci_compressed_size + HEADER_SIZE)
    header = read_header(info, reader)
    if path is not None:
        try:
            file = MetaFile(path, plain_array(info, reader), header, plain_file_size(info))
            meta = file.opened(info)
            if later is None:
                file.finish()
            else:
                later.append(file.finish)
        except OSError as exc:
            logger.warning("%s cannot be kept, it stays in memory: %s", path, exc)
        else:
            return meta
    return BlobMeta(in_memory(plain_array(info, reader)), info, header)


def read_header(info: BlobInfo, reader: BlobReader) -> bytes:
    """The header of the CI array as the blob has it, checked against the blob table."""
    where = f"blob {info.meta_blob_id}: its table of chunks"
    if inflates_too_much(info.ci_uncompressed_size, info.ci_compressed_size):
        raise BlobCorrupt(
            f"{where} has {info.ci_compressed_size} bytes that become {info.ci_uncompressed_size}"
        )
    header = read_range(reader, info.ci_offset + info.ci_compressed_size, HEADER_SIZE)
    cipher = cipher_of(info)
    if cipher is not None:
        header = cipher.decrypt(header)
    difference = header_difference(header, info)
    if difference is not None:
        raise BlobCorrupt(f"{where} is not the one of the bootstrap: {difference}")
    most = plain_size_max(header, info)
    if info.ci_uncompressed_size > most or info.ci_compressed_size > most + PADDED_BYTES:
        raise BlobCorrupt(
            f"{where} is said to have {info.ci_uncompressed_size} bytes, stored in "
            f"{info.ci_compressed_size}; {info.chunk_count} chunks take {most} at most"
        )
    return header


def read_blob_meta(info: BlobInfo, reader: BlobReader) -> tuple[bytes, bytes]:
    """Plain CI array and header as the blob has them, checked against the blob table."""
    header = read_header(info, reader)
    return b"".join(plain_array(info, reader)), header


def plain_array(info: BlobInfo, reader: BlobReader) -> Iterable[bytes]:
    """The plain CI array in pieces; that of an encrypted blob is one."""
    cipher = cipher_of(info)
    if cipher is None:
        return plain_pieces(info, reader)
    array = b""
    if info.ci_compressed_size >= UNIT_BYTES:
        array = cipher.decrypt(read_range(reader, info.ci_offset, info.ci_compressed_size))
    short = unpadded(array)
    if short is not None:
        try:
            return [decompress(info.ci_compressor, short, info.ci_uncompressed_size)]
        except BlobCorrupt:
            pass  # it is content of 18 bytes that looks padded
    return [decompress(info.ci_compressor, array, info.ci_uncompressed_size)]


class MetaFile:
    """A `.blob.meta` file whose content is written; its header comes last, with `finish`.

    A valid header says that the file is complete, so it must not reach the disk before the content.
    A file of the right size is written in place, as others may have it mapped; one of another size
    is nobody's and makes room for a new one. `OSError`.
    """

    def __init__(self, path: Path, pieces: Iterable[bytes], header: bytes, size: int) -> None:
        self._path = path
        self._header = header
        self._size = size
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._fd = os.open(path, flags, 0o644)
        try:
            if os.fstat(self._fd).st_size not in (0, size):
                path.unlink(missing_ok=True)
                old, self._fd = self._fd, os.open(path, flags, 0o644)
                os.close(old)
            os.ftruncate(self._fd, size)
            end = write_pieces(self._fd, pieces)
            write_all(self._fd, bytes(size - HEADER_SIZE - end), end)
        except BaseException:
            os.close(self._fd)
            raise

    def opened(self, info: BlobInfo) -> BlobMeta:
        """The CI array in the file."""
        try:
            return BlobMeta(Mapping(self._fd), info, self._header)
        except BaseException:
            os.close(self._fd)
            raise

    def finish(self) -> None:
        """Have the content on the disk, then write the header. Once; nothing else afterwards."""
        try:
            os.fsync(self._fd)
            write_all(self._fd, self._header, self._size - HEADER_SIZE)
        except OSError as exc:
            logger.warning("%s is not complete, and fetched again at the next start: %s",
                           self._path, exc)  # fmt: skip
        finally:
            os.close(self._fd)


def in_memory(pieces: Iterable[bytes]) -> Mapping:
    """*pieces* in a mapping that no file stands behind."""
    fd = os.memfd_create("nydusd", os.MFD_CLOEXEC)
    try:
        write_pieces(fd, pieces)
        return Mapping(fd)
    finally:
        os.close(fd)


def write_pieces(fd: int, pieces: Iterable[bytes]) -> int:
    """Write *pieces* from the start of the file on; where they end."""
    end = 0
    for piece in pieces:
        write_all(fd, piece, end)
        end += len(piece)
    return end


def write_all(fd: int, data: bytes, offset: int) -> None:
    """Write *data* whole; `OSError` when the disk takes no more."""
    rest = memoryview(data)
    while rest:
        n = os.pwrite(fd, rest, offset)
        rest = rest[n:]
        offset += n


# --- .blob.toc and .blob.digest


def chunk_digests(info: BlobInfo, reader: BlobReader, folder: Path | None) -> bytes:
    """The 32-byte digests of the blob's chunks in chunk order, checked against the ToC.

    `BlobCorrupt` when the blob has no such table or it is not what the ToC says.
    """
    toc = kept_toc(info, folder)
    # What is kept must do without the backend: it may be away when a daemon starts.
    size = reader.size() if toc is None else SIZE_UNKNOWN
    section = find_sections(toc or fetch_toc(info, reader, folder), size).get(DIGEST_SECTION)
    if section is None:
        raise BlobCorrupt(f"blob {info.meta_blob_id}: its table of contents lists no chunk digests")
    if section.uncompressed_size != info.chunk_count * DIGEST_BYTES:
        raise BlobCorrupt(
            f"blob {info.meta_blob_id}: its digest table has {section.uncompressed_size} bytes "
            f"for {info.chunk_count} chunks"
        )
    import hashlib  # 5 ms at start, for those who validate

    path = folder / f"{info.blob_id}.blob.digest" if folder else None
    if path is not None and section.digest:
        kept = read_file(path, section.uncompressed_size)
        if kept is not None and hashlib.sha256(kept).digest() == section.digest:
            return kept
    plain = open_section(section, read_range(reader, section.offset, section.compressed_size))
    if path is not None:
        write_by_rename(path, plain, f"{info.blob_id}.blob.toc_downloading")
    return plain


def kept_toc(info: BlobInfo, folder: Path | None) -> bytes | None:
    """The blob's tail in the cache directory when it may be trusted."""
    if folder is None:
        return None
    toc = read_file(folder / f"{info.blob_id}.blob.toc", TOC_BYTES_MAX)
    if toc is None or len(toc) <= TOC_BYTES_MIN or len(toc) % TOC_UNIT:
        return None
    try:
        check_stored_toc(toc, info.toc_digest if info.toc_size else b"")
        return toc if find_sections(toc, SIZE_UNKNOWN) else None
    except BlobCorrupt:
        return None


def fetch_toc(info: BlobInfo, reader: BlobReader, folder: Path | None) -> bytes:
    """The blob's tail: exactly ToC and header when the size is known, else the last 4096 bytes."""
    blob_size = reader.size()
    size = info.toc_size or tail_size(blob_size)
    if size > blob_size:
        raise BlobCorrupt(f"blob {info.meta_blob_id}: {blob_size} bytes, {size} of them a ToC")
    toc = read_range(reader, blob_size - size, size)
    check_stored_toc(toc, info.toc_digest if info.toc_size else b"")
    if folder is not None and TOC_BYTES_MIN < size <= TOC_BYTES_MAX:
        name = f"{info.blob_id}.blob.toc"
        write_by_rename(folder / name, toc, f"{name}_downloading")
    return toc


def read_file(path: Path, size_max: int) -> bytes | None:
    """The file's bytes, None when it cannot be read or is longer than *size_max*."""
    try:
        with path.open("rb") as file:
            data = file.read(size_max + 1)
    except OSError:
        return None
    return data if len(data) <= size_max else None


def write_by_rename(path: Path, data: bytes, temporary: str) -> None:
    """Put *data* at *path* in one step; a directory that cannot be written is logged only."""
    draft = path.with_name(temporary)
    try:
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as exc:
        logger.warning("%s cannot be kept: %s", path, exc)
