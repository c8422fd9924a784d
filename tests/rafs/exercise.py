"""Every question that can be put to a bootstrap, put to it: for files that may be anything."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from hypothesis import strategies as st

from nydusd.base.errors import BootstrapError
from nydusd.rafs.bootstrap import Bootstrap

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
WALKED = 400  # names that are looked at in one image


def golden_bootstraps(version: int) -> list[Path]:
    """Bootstraps of one version that the reference's builder made."""
    return sorted(GOLDEN.glob(f"*/v{version}-*/bootstrap"))


@st.composite
def damaged_bootstraps(draw: st.DrawFn, version: int) -> bytes:
    """A golden bootstrap with some bytes changed, and perhaps cut."""
    data = bytearray(draw(st.sampled_from(golden_bootstraps(version))).read_bytes())
    changes = st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=8))
    for offset, new in draw(st.lists(changes)):
        at = offset % len(data)
        data[at : at + len(new)] = new
    return bytes(data[: draw(st.none() | st.integers(0, 2**16))])


def ask(question: Callable[[], object]) -> None:
    """Put *question*; an error must be one of ours or one of the system's."""
    with contextlib.suppress(OSError, BootstrapError):
        question()


def exercise(bootstrap: Bootstrap) -> None:
    """Ask *bootstrap* everything about the names of a walk and about numbers it may not have."""
    inos = [0, 1, bootstrap.root_ino, 2**47, 2**64 - 1, *bootstrap.prefetch_inos[:10]]
    with contextlib.suppress(OSError, BootstrapError):
        inos.extend(entry.ino for entry in islice(bootstrap.walk(), WALKED))
    for ino in inos:
        for question in questions(bootstrap, ino):
            ask(question)


def questions(bootstrap: Bootstrap, ino: int) -> Iterator[Callable[[], object]]:
    yield lambda: bootstrap.stat(ino)
    yield lambda: list(islice(bootstrap.iter_entries(ino), WALKED))
    yield lambda: bootstrap.target(ino)
    yield lambda: bootstrap.xattrs(ino)
    yield lambda: bootstrap.xattr_value(ino, b"user.x")
    yield lambda: list(islice(bootstrap.chunk_spans(ino), WALKED))
    yield lambda: list(islice(bootstrap.chunk_spans(ino, 2**62, 4096), WALKED))
    yield lambda: bootstrap.following_spans(ino, 4096, 1 << 20)
    for name in (b".", b"..", b"a", b"hello", b"\xff" * 255, b"x" * 300, b""):
        yield lambda name=name: bootstrap.child(ino, name)  # type: ignore[misc]
