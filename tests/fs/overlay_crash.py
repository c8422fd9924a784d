"""Kills a process at each step of a change of an overlay, and looks at what is left.

`python -m tests.fs.overlay_crash FOLDER` prints how many steps there were, or fails with the one
after which something is neither old nor new. A process of its own, since it forks.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path

from nydusd.fs.overlay import OverlayFs, open_overlay
from nydusd.fs.stat import Caller, Stat
from tests.fs.memory import ROOT, MemoryFs

OLD = bytes(range(256)) * 4096 * 2 + bytes(100_000) + b"end"  # three pieces, with a hole
ME = Caller(0, 0, 0)
MOST_STEPS = 2000
STRIDE = int(os.environ.get("NYDUSD_OVERLAY_STRIDE", "5"))  # 1: every step


class LowerFs(MemoryFs):
    """Two files, with an attribute, an owner and a time of their own."""

    def __init__(self) -> None:
        super().__init__({b"file": OLD, b"other": b"other"})

    def stat(self, ino: int) -> Stat:
        return super().stat(ino)._replace(uid=7, gid=8, mtime_ns=10**18)

    def list_xattrs(self, ino: int) -> list[bytes]:
        return [b"user.key"]


def make(folder: Path) -> OverlayFs:
    for name in ("upper", "work"):
        (folder / name).mkdir(exist_ok=True)
    return open_overlay(LowerFs(), str(folder / "upper"), str(folder / "work"), writable=True)


def content(overlay: OverlayFs, name: bytes) -> bytes | None:
    """What *name* holds, with its attributes checked where it is the image's."""
    found = overlay.find(ROOT, name)
    if found is None:
        return None
    if stat.S_ISDIR(found.mode):
        return b"directory %d" % len(list(overlay.entries(found.ino, 1 << 40, 0)))
    assert (found.uid, found.gid, found.mtime_ns) == (7, 8, 10**18), found
    assert overlay.get_xattr(found.ino, b"user.key") == b"value"
    handle = overlay.open_file(found.ino, os.O_RDONLY).handle
    offsets = range(0, found.size, 1 << 20)
    parts = [overlay.read_file(found.ino, handle, offset, 1 << 20) for offset in offsets]
    overlay.close_file(found.ino, handle)
    return b"".join(parts)


def copy_up(overlay: OverlayFs) -> None:
    overlay.open_file(overlay.find(ROOT, b"file").ino, os.O_RDWR)


def move(overlay: OverlayFs) -> None:
    overlay.find(ROOT, b"file")
    overlay.rename(ROOT, b"file", ROOT, b"moved", 0)


def replace(overlay: OverlayFs) -> None:
    overlay.rename(ROOT, b"other", ROOT, b"file", 0)


def remove(overlay: OverlayFs) -> None:
    overlay.remove_file(ROOT, b"file")


def remake(overlay: OverlayFs) -> None:
    overlay.remove_file(ROOT, b"file")
    overlay.make_directory(ROOT, b"file", 0o755, ME)
    overlay.remove_directory(ROOT, b"file")


# what (file, moved, other) may be afterwards
CASES: dict[Callable[[OverlayFs], None], set[tuple[bytes | None, ...]]] = {
    copy_up: {(OLD, None, b"other")},
    move: {(OLD, None, b"other"), (None, OLD, b"other")},
    replace: {(OLD, None, b"other"), (b"other", None, None)},
    remove: {(OLD, None, b"other"), (None, None, b"other")},
    remake: {(OLD, None, b"other"), (None, None, b"other"), (b"directory 2", None, b"other")},
}


def killed_at(folder: Path, act: Callable[[OverlayFs], None], step: int) -> bool:
    """Whether *act* was killed before its C call number *step*; it has ended before else."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            overlay = make(folder)
            left = step

            def count(frame: object, event: str, argument: object) -> None:
                nonlocal left
                left -= event == "c_call"
                if left <= 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.setprofile(count)
            act(overlay)
            sys.setprofile(None)
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return True
    assert os.WEXITSTATUS(status) == 0, f"{act.__name__} failed"
    return False


def main(folder: Path) -> int:
    """How many steps were killed."""
    total = 0
    for act, allowed in CASES.items():
        for step in range(1, MOST_STEPS, STRIDE):
            shutil.rmtree(folder)
            folder.mkdir()
            is_killed = killed_at(folder, act, step)
            overlay = make(folder)
            seen = tuple(content(overlay, name) for name in (b"file", b"moved", b"other"))
            assert seen in allowed, f"{act.__name__}, step {step}: {[s and s[:9] for s in seen]}"
            assert not list((folder / "work/work").iterdir())
            overlay.close()
            if not is_killed:
                break
            total += 1
        else:
            raise AssertionError(f"{act.__name__} has no end")
    return total


if __name__ == "__main__":
    print(main(Path(sys.argv[1])))
