from typing_extensions import Buffer

def read_files(
    ranges: list[tuple[bytes, int, int, int, int, int]], buffer: Buffer
) -> tuple[int, int] | None: ...
