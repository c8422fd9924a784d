from pathlib import Path

MS_RDONLY: int
MS_NOSUID: int
MS_NODEV: int
MS_NOATIME: int
MNT_DETACH: int

def mount(source: str, path: str | Path, kind: str, flags: int, data: str) -> None: ...
def umount(path: str | Path, flags: int) -> None: ...
