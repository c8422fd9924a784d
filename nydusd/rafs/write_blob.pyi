from typing import Final

from nydusd.rafs.blobs import Compressor

BLOB_SECTION: Final = "image.blob"

def ci_header(
    features: int,
    compressor: int,
    entries: int,
    offset: int,
    compressed_size: int,
    uncompressed_size: int,
) -> bytes: ...
def tar_header(section: str, size: int) -> bytes: ...
def toc_entry(
    section: str,
    compressor: Compressor,
    digest: bytes,
    offset: int,
    compressed_size: int,
    uncompressed_size: int,
) -> bytes: ...
