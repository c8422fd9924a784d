from dataclasses import dataclass

from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobInfo

@dataclass(frozen=True, slots=True)
class TablesV5:
    blobs: list[BlobInfo]
    prefetch_inos: list[int]
    digester: int

def read_tables(file: Mapping) -> TablesV5: ...
