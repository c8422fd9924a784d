"""Any tree, packed and mounted, is the tree; whatever is asked of both, they say alike."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from nydusd.build.check import check_image
from nydusd.build.create import create_image
from nydusd.build.create_options import CreateOptions
from nydusd.rafs.blobs import Compressor, Digester
from tests.hostile.operations import paths_below, sequences
from tests.strategies import Tree, deep, make, rich_trees, wide
from tests.system.control import ask
from tests.system.daemon import v1_config
from tests.system.readback import differences, manifest_of

pytestmark = [pytest.mark.root, pytest.mark.fuse, pytest.mark.slow, pytest.mark.timeout(600)]

EXAMPLES = int(os.environ.get("NYDUSD_TEST_TREES", "60"))
SEQUENCES = int(os.environ.get("NYDUSD_TEST_SEQUENCES", "600"))


@st.composite
def options(draw: st.DrawFn) -> dict[str, object]:
    """How to pack."""
    version = draw(st.sampled_from([5, 6]))
    return {
        "version": version,
        "compressor": draw(
            st.sampled_from([Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD])
        ),
        "digester": draw(st.sampled_from([Digester.BLAKE3, Digester.SHA256])),
        "chunk_size": 1 << draw(st.sampled_from([12, 13, 16, 20, 24])),
        "aligned_chunk": draw(st.booleans()) if version == 5 else False,
        "blob_toc": draw(st.booleans()) if version == 6 else False,
    }


class Untold:
    """Something drawn that would take pages to show."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree

    def __repr__(self) -> str:
        return "the tree on disk"


class Packed:
    """A tree on disk and its image, mounted by the daemon behind *sock* at *path*."""

    def __init__(self, folder: Path, mountpoint: Path, sock: Path, path: str) -> None:
        self.source = folder / "source"
        self.blobs = folder / "blobs"
        self.cache = folder / "cache"
        self.bootstrap = folder / "bootstrap"
        for place in (self.blobs, self.cache):
            place.mkdir(parents=True)
        self.sock = sock
        self.path = path
        self.root = mountpoint / path.lstrip("/")

    def pack(self, tree: Tree, chosen: dict[str, object]) -> None:
        make(tree, self.source)
        create_image(
            CreateOptions(
                source=self.source,
                bootstrap=self.bootstrap,
                blob_dir=self.blobs,
                **chosen,  # type: ignore[arg-type]
            )
        )

    def mount(self) -> None:
        config = json.dumps(v1_config(self.blobs, self.cache, validate=True))
        body = {"fs_type": "rafs", "source": str(self.bootstrap), "config": config}
        reply = ask(self.sock, "POST", "/api/v1/mount", body, mountpoint=self.path)
        assert reply.status == 204, reply

    def umount(self) -> None:
        assert ask(self.sock, "DELETE", "/api/v1/mount", mountpoint=self.path).status == 204


def test_any_tree_comes_back_from_its_image(shared, tmp_path, record_property):
    daemon, sock = shared
    done = 0
    began = time.time()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # A smaller example would take a mount for each try; what failed stays on disk instead.
        phases=[Phase.explicit, Phase.generate],
        report_multiple_bugs=False,
    )
    @given(rich_trees().map(Untold), options())
    def comes_back(tree, chosen):
        nonlocal done
        done += 1
        folder = tmp_path / f"{done}"
        packed = Packed(folder, daemon.mountpoint, sock, f"/{done}")
        packed.pack(tree.tree, chosen)
        assert check_image(packed.bootstrap, packed.blobs).findings == []
        packed.mount()
        try:
            found = differences(packed.root, manifest_of(packed.source), began)
        finally:
            packed.umount()
        # At a path of its own the root shows the mountpoint's time.
        found = [line for line in found if not line.startswith("'/': mtime")]
        assert not found, (chosen, found[:10])
        shutil.rmtree(folder)

    comes_back()
    record_property("hostile", f"{done} random trees came back from their images")


IMAGES = [
    (6, Compressor.ZSTD, 1 << 12),
    (6, Compressor.NONE, 1 << 20),
    (5, Compressor.LZ4_BLOCK, 1 << 12),
    (5, Compressor.ZSTD, 1 << 16),
]


def everything() -> Tree:
    """A tree with something of every kind."""
    noise = bytes(n * n >> 3 & 0xFF for n in range(70_000))
    children = {
        b"empty": Tree(0o100644, 5),
        b"small": Tree(
            0o100640, 7 * 10**9 + 3, b"small", xattrs={"user.a": b"1", "trusted.b": b""}
        ),
        b"large": Tree(0o104755, 9, noise * 5),
        b"zeros": Tree(0o100644, content=bytes(300_000)),
        b"holes": Tree(0o100644, content=b"x", holes=[(1 << 20, b"y" * 5000), (8192, b"")]),
        b"link": Tree(0o120777, content=b"large"),
        b"to-nothing": Tree(0o120777, content=b"/nowhere/" + b"z" * 900),
        b"loop": Tree(0o120777, content=b"loop"),
        b"fifo": Tree(0o010600),
        b"char": Tree(0o020600, rdev=os.makedev(1, 3)),
        b"wide": wide(700),
        b"deep": deep(40),
        b"\xff\xfe": Tree(0o040700, children={b"in": Tree(0o100400, content=b"in")}),
    }
    return later(Tree(0o040755, children=children, links=[(0, b"l1"), (1, b"l2"), (2, b"l3")]))


def later(tree: Tree) -> Tree:
    """*tree* a second later: a mount shows its start for times in second 0."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        node.mtime_ns += 10**9
        waiting += node.children.values()
    return tree


@pytest.mark.parametrize(("version", "compressor", "chunk_size"), IMAGES)
def test_a_mount_answers_random_sequences_like_its_source(
    shared,
    tmp_path,
    record_property,
    version,
    compressor,
    chunk_size,
):
    daemon, sock = shared
    packed = Packed(tmp_path / "image", daemon.mountpoint, sock, "/x")
    packed.pack(
        everything(), {"version": version, "compressor": compressor, "chunk_size": chunk_size}
    )
    packed.mount()
    source, mount = os.fsencode(packed.source), os.fsencode(packed.root)
    paths = paths_below(source)
    count = SEQUENCES // len(IMAGES)
    steps = errors = 0
    for number, sequence in enumerate(sequences(f"{version}:{chunk_size}", paths, count)):
        wanted = sequence.run(source)
        steps += len(wanted)
        errors += sum(len(answer) == 3 for answer in wanted)
        for step, pair in enumerate(zip(sequence.run(mount), wanted, strict=True)):
            assert pair[0] == pair[1], (number, sequence.steps[step][:2])
    packed.umount()

    record_property(
        "hostile",
        f"{count} sequences of {steps} operations ({errors} errors) on v{version}: equal",
    )
    assert errors
