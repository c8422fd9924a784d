from typing import NamedTuple, Self, final

from nydusd.base.mapping import Mapping

class Stretch(NamedTuple):
    in_offset: int
    in_size: int
    out_size: int
    dictionary: bytes
    lead_byte: int
    lead_bits: int

@final
class ZranTable:
    count: int
    def __new__(
        cls, file: Mapping, offset: int, size: int, count: int, compressed_end: int
    ) -> Self: ...
    def at(self, index: int) -> Stretch: ...
