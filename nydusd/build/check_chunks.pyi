from typing import final

from nydusd.rafs.blobmeta import BlobMeta
from nydusd.rafs.bootstrap import Bootstrap

@final
class MetChunks:
    def overlaps(self) -> list[str]: ...

def read_chunk_table(bootstrap: Bootstrap, met: MetChunks) -> list[str]: ...
def compare_with_meta(met: MetChunks, meta: BlobMeta, blob_index: int) -> list[str]: ...
