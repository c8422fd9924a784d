from typing_extensions import Buffer

def inflate(
    stored: Buffer,
    size: int,
    dictionary: Buffer | None = None,
    lead_byte: int = 0,
    lead_bits: int = 0,
) -> bytes: ...
