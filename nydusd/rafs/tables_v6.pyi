from dataclasses import dataclass

from nydusd.base.mapping import Mapping
from nydusd.rafs.blobs import BlobInfo

@dataclass(frozen=True, slots=True)
class TablesV6:
    blobs: list[BlobInfo]
    prefetch_nids: list[int]

def read_tables(file: Mapping) -> TablesV6: ...
