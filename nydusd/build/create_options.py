"""What an image is made from and how: the options of `create`, checked."""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nydusd.base.errors import BuildError
from nydusd.build.overlay import WhiteoutSpec
from nydusd.build.prefetch import PrefetchPolicy
from nydusd.rafs.blobs import (
    BLOB_ID_MAX,
    CHUNK_SIZE_MAX,
    CHUNK_SIZE_MIN,
    Compressor,
    Digester,
)
from nydusd.rafs.writing import RELEASE_2_2, REVISIONS, Revision

# The words of the command line; gzip is only read.
COMPRESSORS: Final = {
    "none": Compressor.NONE,
    "lz4_block": Compressor.LZ4_BLOCK,
    "zstd": Compressor.ZSTD,
}
DIGESTERS: Final = {"blake3": Digester.BLAKE3, "sha256": Digester.SHA256}
BUILDERS: Final[dict[str, Revision]] = REVISIONS
V6_BLOB_ID_MAX: Final = 64  # bytes


@dataclass(frozen=True, slots=True)
class CreateOptions:
    """What an image is made from and how, as the command line says it; `BuildError` for nonsense.

    Either *blob* or *blob_dir* says where data goes, and *bootstrap* (else *blob_dir*, else with
    *inline_meta* the blob) where the metadata goes.
    """

    source: Path
    bootstrap: Path | None = None
    blob: Path | None = None
    blob_dir: Path | None = None
    blob_id: str = ""
    inline_meta: bool = False
    blob_toc: bool = False
    version: int = 6
    compressor: Compressor = Compressor.ZSTD
    digester: Digester = Digester.BLAKE3
    chunk_size: int = 1 << 20  # bytes
    aligned_chunk: bool = False
    explicit_uid_gid: bool = True
    whiteout_spec: WhiteoutSpec = WhiteoutSpec.OCI
    prefetch_policy: PrefetchPolicy = PrefetchPolicy.NONE
    prefetch_patterns: tuple[bytes, ...] = ()  # lines
    parent_bootstrap: Path | None = None
    chunk_dict: Path | None = None
    revision: Revision = RELEASE_2_2

    def __post_init__(self) -> None:
        """Refuse what cannot be built, before anything is written."""
        size = self.chunk_size
        if not CHUNK_SIZE_MIN <= size <= CHUNK_SIZE_MAX or size & (size - 1):
            raise BuildError(
                f"chunk size {size:#x}: it must be a power of two between "
                f"{CHUNK_SIZE_MIN:#x} and {CHUNK_SIZE_MAX:#x}"
            )
        limit = BLOB_ID_MAX if self.version == 5 else V6_BLOB_ID_MAX
        id_bytes = os.fsencode(self.blob_id)
        if len(id_bytes) > limit or id_bytes in (b".", b"..") or set(id_bytes) & set(b"/\0"):
            raise BuildError(
                f"blob id {self.blob_id!r}: it must be a file name of at most {limit} bytes"
            )
        if self.blob_toc and self.version == 5:
            raise BuildError("blob-toc is a feature of v6 only")
        if self.blob is None and self.blob_dir is None:
            raise BuildError("neither a blob file nor a blob directory is given: where to put data")
        if self.blob is not None and self.bootstrap is not None:
            _check_two_files(self.blob, self.bootstrap)
        if self.blob_dir is not None and not self.blob_dir.is_dir():
            raise BuildError(f"{self.blob_dir}: the directory to store blobs does not exist")
        if self.bootstrap is None and self.blob_dir is None and not self.inline_meta:
            raise BuildError("neither a bootstrap file nor a blob directory is given")
        if not self.source.exists():
            raise BuildError(f"{self.source}: no such source")
        if not self.source.is_dir():
            raise BuildError(f"{self.source}: the source must be a directory")


def _check_two_files(blob: Path, bootstrap: Path) -> None:
    """`BuildError` when both names are of one file; a device (/dev/null) may have both parts."""
    final = Path(os.path.realpath(blob))
    if final != Path(os.path.realpath(bootstrap)):
        return
    if not final.exists() or stat.S_ISREG(final.stat().st_mode):
        raise BuildError(f"{blob}: the blob and the bootstrap must be two files")
