"""One cache directory, many users: processes of ours, and the reference's daemon where it is here.

NYDUSD_REFERENCE names that binary; the tests with it are skipped without.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from multiprocessing.sharedctypes import SynchronizedArray
from pathlib import Path
from typing import Any

import pytest

from nydusd.cache.span_reader import read_spans
from tests.cache.made import MadeBackend, MadeBlob, MadeReader, device
from tests.system.conftest import nydusd  # noqa: F401 - a fixture
from tests.system.daemon import Command, Daemon, v1_config
from tests.system.images import GOLDEN, Image
from tests.system.readback import differences

REFERENCE = os.environ.get("NYDUSD_REFERENCE", "")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="NYDUSD_REFERENCE does not name the reference's nydusd"
)
CHUNKS = 60


# --- processes of ours


def made_blob() -> MadeBlob:
    rng = random.Random(1)
    return MadeBlob([rng.randbytes(rng.randint(1, 9000)) for _ in range(CHUNKS)])


class CountingBackend(MadeBackend):
    """Counts in *counts*, an array that processes share, how often each chunk was asked for."""

    def __init__(self, blob: MadeBlob, counts: SynchronizedArray) -> None:
        super().__init__(blob)
        self.blob = blob
        self.counts = counts

    def reader(self, blob_id: str) -> MadeReader:
        backend = self

        class Counting(MadeReader):
            def read_into(self, buffer: Any, offset: int, *, background: bool = False) -> None:
                for index, (start, size, _) in enumerate(backend.blob.places):
                    if offset <= start and start + size <= offset + len(buffer):
                        with backend.counts.get_lock():
                            backend.counts[index] += 1
                super().read_into(buffer, offset, background=background)

        return Counting(self, self.blobs[blob_id].data)


def read_everything(
    folder: str, counts: SynchronizedArray, seed: int, batch_size: int, start: Any
) -> None:
    """What one process does: every chunk, in an order of its own; ends with 3 for a wrong byte."""
    blob = made_blob()
    opened = device(blob, CountingBackend(blob, counts), Path(folder), batch_size)
    order = list(range(CHUNKS))
    random.Random(seed).shuffle(order)
    start.wait(30)
    right = all(read_spans(opened, [blob.span(i)]) == blob.chunks[i] for i in order)
    opened.close()
    raise SystemExit(0 if right else 3)


@pytest.mark.parametrize(("processes", "batch_size"), [(2, 0), (8, 0), (8, 30000)])
def test_no_process_fetches_a_chunk_twice_and_late_ones_fetch_nothing(
    tmp_path, processes, batch_size
):
    """The bound of docs/formats/cache-files.md: once a process, and only while fetches overlap."""
    context = multiprocessing.get_context("spawn")
    counts = context.Array("i", CHUNKS)
    start = context.Barrier(processes)
    workers = [
        context.Process(target=read_everything, args=(str(tmp_path), counts, n, batch_size, start))
        for n in range(processes)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    fetched = list(counts)
    assert min(fetched) >= 1
    assert max(fetched) <= processes
    blob = made_blob()
    late = device(blob, CountingBackend(blob, counts), tmp_path, batch_size)
    assert b"".join(read_spans(late, [blob.span(i)]) for i in range(CHUNKS)) == blob.content
    late.close()
    assert list(counts) == fetched


# --- with the reference's daemon

Start = Callable[[str, Image, Path, Path], Daemon]


@pytest.fixture
def start(nydusd: Command, tmp_path: Path) -> Iterator[Start]:  # noqa: F811
    """A function that starts `ours` or `theirs` on an image, blobs and a cache directory."""
    daemons: list[Daemon] = []

    def run(make: str, image: Image, blobs: Path, cache: Path, **settings: Any) -> Daemon:
        number = len(daemons)
        where = tmp_path / f"mnt{number}"
        where.mkdir()
        cache.mkdir(exist_ok=True)
        config = tmp_path / f"config{number}.json"
        config.write_text(json.dumps(v1_config(blobs, cache, **settings)))
        command = nydusd if make == "ours" else Command([REFERENCE])
        options = () if make == "ours" else ("--rlimit-nofile", "20000")
        daemon = Daemon(
            command.argv, where, bootstrap=image.bootstrap, config=config, env=command.env
        )
        if options:
            at = daemon.argv.index("--rlimit-nofile")
            daemon.argv[at : at + 2] = options
        daemons.append(daemon)
        daemon.start()
        return daemon

    yield run
    for daemon in daemons:
        daemon.stop()


def own_blobs(image: Image, folder: Path) -> Path:
    shutil.copytree(image.blobs, folder)
    return folder


def empty_blobs(folder: Path) -> None:
    """From now on whatever is served comes from the cache."""
    for path in folder.iterdir():
        os.truncate(path, 0)


@needs_reference
@pytest.mark.root
@pytest.mark.fuse
@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
@pytest.mark.parametrize("name", ["v5-zstd", "v6-zstd", "v6-lz4"])
@pytest.mark.parametrize(("first", "second"), [("ours", "theirs"), ("theirs", "ours")])
def test_what_one_daemon_keeps_serves_the_other_also_while_both_run(
    start,
    tmp_path,
    name,
    compressed,
    first,
    second,
):
    now = time.time()
    image = Image(GOLDEN / name)
    blobs = own_blobs(image, tmp_path / "blobs")
    cache = tmp_path / "cache"
    one = start(first, image, blobs, cache, compressed=compressed)
    two = start(second, image, blobs, cache, compressed=compressed)
    # What the reference fetches it keeps a little later, in the background.
    assert not differences(one.mountpoint, image.manifest, now)
    wait_for_map(cache)
    empty_blobs(blobs)
    assert not differences(two.mountpoint, image.manifest, now)
    one.stop()
    two.stop()
    for make in (first, second):
        daemon = start(make, image, blobs, cache, compressed=compressed)
        assert not differences(daemon.mountpoint, image.manifest, now)
        daemon.stop()


def wait_for_map(cache: Path) -> None:
    """Return once every chunk of the only blob is promised."""
    (path, *_) = sorted(cache.glob("*.chunk_map"), key=lambda path: len(path.name))
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        bits = path.read_bytes()[4096:]
        if bits[:-1].count(0xFF) == len(bits) - 1 and bits[-1]:
            padding = bits[-1] & -bits[-1]
            if bits[-1] == 0x100 - padding:
                return
        time.sleep(0.01)
    raise AssertionError(f"the chunk map is not full: {bits.hex()}")
