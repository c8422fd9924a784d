from typing import Final, NamedTuple

from typing_extensions import Buffer

from nydusd.rafs.blobs import Compressor

TAIL_SIZE: Final = 4096
SECTION_SIZE_MAX: Final = 2147483648
BOOTSTRAP_SECTION: Final = "image.boot"
TOC_SECTION: Final = "rafs.blob.toc"
CI_SECTION: Final = "blob.meta"
CI_HEADER_SECTION: Final = "blob.meta.header"
DIGEST_SECTION: Final = "blob.digest"

class Section(NamedTuple):
    name: str
    compressor: Compressor
    offset: int
    compressed_size: int
    uncompressed_size: int
    digest: bytes

def tail_size(blob_size: int) -> int: ...
def parse_tar_header(block: Buffer) -> tuple[str, int] | None: ...
def parse_toc(data: Buffer, blob_size: int) -> dict[str, Section]: ...
def find_sections(tail: bytes, blob_size: int) -> dict[str, Section]: ...
def check_stored_toc(stored: bytes, digest: bytes) -> None: ...
def open_section(section: Section, stored: bytes) -> bytes: ...
