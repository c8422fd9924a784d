"""What processes do to a cache directory when they are killed or the power goes."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nydusd.cache import durable
from nydusd.cache.device import Device
from nydusd.cache.files import map_paths
from nydusd.cache.sidecars import write_by_rename
from nydusd.cache.span_reader import read_spans
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, device
from tests.cache.made_units import UnitBlob

CHUNKS = 12


def chunks(size: int = 5000, spread: int = 3000) -> list[bytes]:
    """Chunks of odd sizes, no two alike, without a zero page in them."""
    rng = random.Random(4711)
    return [
        bytes(rng.randrange(1, 256) for _ in range(rng.randint(size - spread, size + spread)))
        for _ in range(CHUNKS)
    ]


class Scenario(NamedTuple):
    """A blob, how it is kept, and what is done before and while the fault happens."""

    make: Callable[[], MadeBlob]
    settings: dict[str, Any]
    before: str = ""  # of `prepare`
    during: str = "read"
    batch_size: int = 0


def v6() -> MadeBlob:
    return MadeBlob(chunks(), with_crc=False)


def v5_close() -> MadeBlob:
    """v5 chunks that share pages with their neighbours, without anything but the map to tell."""
    return MadeBlob(chunks(1500, 700), 5, Compressor.NONE, with_crc=False, alignment=1)


def batch() -> MadeBlob:
    return UnitBlob(chunks(3000, 2000), with_crc=False, units=(3, 1, 4, 0, 2, 1))


def encrypted() -> MadeBlob:
    return UnitBlob(chunks(), with_crc=False, units=(1, 3, 1, 4, 3), encrypted=True)


SCENARIOS = {
    "v6": Scenario(v6, {}),
    "v6-amplified": Scenario(v6, {}, batch_size=20000),
    "v6-compressed": Scenario(v6, {"compressed": True}),
    "v5-shared-pages": Scenario(v5_close, {}),
    "batch": Scenario(batch, {}),
    "batch-compressed": Scenario(batch, {"compressed": True}),
    "encrypted": Scenario(encrypted, {}),
    "after-a-reboot": Scenario(v6, {}, before="half-synced", during="reopen"),
    "with-a-map-of-2.2": Scenario(v6, {}, before="older-map", during="reopen"),
    "data-file-gone": Scenario(v6, {}, before="data-gone", during="reopen"),
    "data-file-replaced": Scenario(v6, {}, before="data-replaced", during="reopen"),
    "sidecars": Scenario(v6, {}, during="sidecars"),
}


def set_boot(number: int, folder: Path) -> None:
    """Be in boot *number* of the machine from now on."""
    path = folder.with_name(f"{folder.name}.boot")
    path.write_text(f"{number:08x}-0000-4000-8000-{number:012x}\n")
    durable.BOOT_ID = path


def opened(blob: MadeBlob, scenario: Scenario, folder: Path) -> tuple[Device, MadeBackend]:
    """The blob in *folder*, with a backend of its own."""
    backend = MadeBackend(blob)
    return device(blob, backend, folder, scenario.batch_size, **scenario.settings), backend


def some(blob: MadeBlob, count: int) -> list[int]:
    """*count* chunks in an order of their own."""
    order = list(range(len(blob.chunks)))
    random.Random(5).shuffle(order)
    return order[:count]


def prepare(scenario: Scenario, blob: MadeBlob, folder: Path) -> None:
    """What has been done to *folder* before, in boot 1."""
    set_boot(1, folder)
    if not scenario.before:
        return
    work, _ = opened(blob, scenario, folder)
    for index in some(blob, 4):
        read_spans(work, [blob.span(index)])
    work.blobs[0].durable.sync()
    for index in some(blob, 8)[4:]:
        read_spans(work, [blob.span(index)])
    paths = map_paths(folder, blob.blob_id)
    data = folder / f"{blob.blob_id}.blob.data"
    if scenario.before == "half-synced":
        # As a power cut may leave it: bits whose bytes never came, pages of zeros.
        for index in some(blob, 8)[4:]:
            with data.open("r+b") as file:
                file.seek(blob.places[index][2])
                file.write(bytes(len(blob.chunks[index])))
        set_boot(2, folder)
        work.blobs[0].durable._file.take_unsynced()  # not to be synced at its end
        paths.record.rename(paths.record.with_name("kept"))
        work.close()
        paths.record.with_name("kept").rename(paths.record)
        return
    work.close()
    if scenario.before == "older-map":
        paths.chunk_map.unlink()
        paths.record.unlink()
    elif scenario.before == "data-gone":
        data.unlink()
    elif scenario.before == "data-replaced":
        size = data.stat().st_size
        data.unlink()
        data.write_bytes(bytes(size))


def fault(scenario: Scenario, blob: MadeBlob, folder: Path) -> None:
    """What is going on when the fault happens."""
    work, _ = opened(blob, scenario, folder)
    if scenario.during == "sidecars":
        for number in range(3):
            name = f"{blob.blob_id}.blob.toc"
            write_by_rename(folder / name, struct.pack("<I", number) * 200, f"{name}_downloading")
    for index in some(blob, 5):
        read_spans(work, [blob.span(index)])
    work.blobs[0].durable.sync()
    for index in some(blob, 8)[5:]:
        read_spans(work, [blob.span(index)])
    work.close()


def check(scenario: Scenario, blob: MadeBlob, folder: Path) -> None:
    """Every byte is right, once and again; the second time nothing is fetched."""
    for attempt in range(2):
        work, backend = opened(blob, scenario, folder)
        for index, content in enumerate(blob.chunks):
            got = read_spans(work, [blob.span(index)])
            assert got == content, f"chunk {index} is wrong at look {attempt}: {got[:8].hex()}"
        requests = len(backend.data_requests(blob))
        assert requests <= CHUNKS, f"{requests} requests for {CHUNKS} chunks"
        assert attempt == 0 or requests == 0, f"{requests} requests for what is here"
        work.close()
    toc = folder / f"{blob.blob_id}.blob.toc"
    if toc.exists():
        content = toc.read_bytes()
        assert content == content[:4] * 200, "a sidecar is a mixture"
