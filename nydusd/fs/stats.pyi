from typing import Any, Self, final

SIZE_BOUNDS_BYTES: tuple[int, ...]
LATENCY_BOUNDS_MICROSECONDS: tuple[int, ...]
FOP_NAMES: tuple[str, ...]

@final
class FsStats:
    per_file: bool
    access_pattern: bool
    latest_read: bool
    def __new__(
        cls,
        inodes: int = 0,
        *,
        per_file: bool = False,
        access_pattern: bool = False,
        latest_read: bool = False,
    ) -> Self: ...
    def snapshot(self) -> dict[str, Any]: ...
    def files_snapshot(self) -> dict[int, dict[str, Any]]: ...
    def first_reads(self) -> list[tuple[int, int, int]]: ...
    def take_latest_reads(self) -> list[int]: ...
