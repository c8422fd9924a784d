from nydusd.base.mapping import Mapping
from nydusd.rafs.records import Tables

def read_tables(file: Mapping) -> Tables: ...
