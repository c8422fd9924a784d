import os
import random
import shutil
import threading
import time
from pathlib import Path

import pytest

from nydusd.cache.cached_blob import CachedBlob
from nydusd.cache.device import Device
from nydusd.cache.evict import bytes_by_stamp, evict, ignore_lease_breaks
from nydusd.cache.files import DATA_SUFFIXES
from nydusd.cache.pool import open_blob
from nydusd.cache.prefetch import Prefetcher
from nydusd.cache.quota import Quota
from nydusd.cache.recent_units import forget_units, remember_unit
from nydusd.cache.room import CacheRoom, remove_closed
from nydusd.cache.span_reader import read_spans
from nydusd.cache.uses import stamp_now
from nydusd.config.model import Prefetch
from nydusd.rafs.blobs import Compressor
from tests.cache.made import MadeBackend, MadeBlob, policy
from tests.cache.made_units import UnitBlob
from tests.cache.made_zran import ZranBlob

LIMIT = 1 << 20
LATER = 0xFFFFFFFF
ALL = 1 << 40
PREFETCH = Prefetch(enable=True, threads=2, batch_size=128 << 10)


@pytest.fixture(autouse=True)
def lease_breaks_are_ignored():
    ignore_lease_breaks()


def blob_of(count: int, version: int = 6, blob_id: str = "b" * 64) -> MadeBlob:
    chunks = [random.Random(i).randbytes(8192) for i in range(count)]
    return MadeBlob(chunks, version, Compressor.NONE, blob_id=blob_id)


def limited(blob: MadeBlob, backend: MadeBackend, folder, **kept) -> Device:
    settings = policy(folder, **kept)._replace(size_limit=LIMIT)
    cached = open_blob(blob.info, backend, settings)
    return Device([cached], 0, cached.close)


def read(filled: Device, blob: MadeBlob, *indexes: int) -> None:
    for index in indexes:
        assert read_spans(filled, [blob.span(index)]) == blob.chunks[index]


def ready(filled: Device) -> list[int]:
    chunks = filled.blobs[0].chunks
    return [index for index in range(chunks.count) if chunks.ready(index)]


def next_stamp() -> int:
    """A stamp later than now, once the clock has come to it."""
    before = stamp_now()
    while stamp_now() == before:
        os.sched_yield()
    return stamp_now()


@pytest.mark.parametrize("version", [5, 6])
@pytest.mark.parametrize("compressed", [False, True])
def test_evicted_chunks_are_fetched_again(tmp_path, version, compressed):
    blob = blob_of(100, version)
    backend = MadeBackend(blob)
    filled = limited(blob, backend, tmp_path, compressed=compressed)
    read(filled, blob, *range(100))
    cached = filled.blobs[0]
    blocks = cached.file.path.stat().st_blocks
    assert evict(cached, LATER, ALL) == 100 * 8192
    assert ready(filled) == []
    assert cached.file.path.stat().st_blocks <= blocks // 20
    requests = len(backend.data_requests(blob))
    read(filled, blob, *range(100))
    assert len(backend.data_requests(blob)) > requests
    assert ready(filled) == list(range(100))
    filled.close()


def test_what_was_used_for_longest_goes_first(tmp_path):
    blob = blob_of(30)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(30))
    old = stamp_now()
    next_stamp()
    read(filled, blob, *range(10))
    assert evict(filled.blobs[0], old, ALL) == 20 * 8192
    assert ready(filled) == list(range(10))
    filled.close()


def test_no_more_goes_than_is_wanted(tmp_path):
    blob = blob_of(100)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(100))
    assert evict(filled.blobs[0], LATER, 5 * 8192 - 1) == 5 * 8192
    assert len(ready(filled)) == 95
    filled.close()


def test_a_file_that_somebody_else_has_open_stays(tmp_path):
    blob = blob_of(10)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(10))
    with filled.blobs[0].file.path.open("rb"):
        assert evict(filled.blobs[0], LATER, ALL) == 0
        assert ready(filled) == list(range(10))
    assert evict(filled.blobs[0], LATER, ALL) == 10 * 8192
    filled.close()


def test_a_full_map_is_full_no_more(tmp_path):
    blob = blob_of(10)
    limited_once = limited(blob, MadeBackend(blob), tmp_path)
    read(limited_once, blob, *range(10))
    limited_once.close()
    filled = limited(blob, MadeBackend(blob), tmp_path)  # sets the marker of a full map
    read(filled, blob, 0)
    assert evict(filled.blobs[0], LATER, 3 * 8192) == 3 * 8192
    filled.close()
    backend = MadeBackend(blob)
    again = limited(blob, backend, tmp_path)
    assert len(ready(again)) == 7
    read(again, blob, *range(10))
    assert len(backend.data_requests(blob)) == 3
    again.close()


def test_chunks_of_an_earlier_run_count_as_unused(tmp_path):
    blob = blob_of(10)
    first = limited(blob, MadeBackend(blob), tmp_path)
    read(first, blob, *range(10))
    first.close()
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, 3)
    assert bytes_by_stamp(filled.blobs[0])[0] == 9 * 8192
    assert evict(filled.blobs[0], 0, ALL) == 9 * 8192
    assert ready(filled) == [3]
    filled.close()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("validate", [False, True])
def test_readers_get_right_bytes_while_chunks_go(tmp_path, compressed, validate):
    blob = blob_of(64, 5)
    filled = limited(blob, MadeBackend(blob), tmp_path, compressed=compressed, validate=validate)
    wrong = []
    stop = threading.Event()

    def reader(seed: int) -> None:
        choice = random.Random(seed)
        while not stop.is_set():
            index = choice.randrange(64)
            if read_spans(filled, [blob.span(index)]) != blob.chunks[index]:
                wrong.append(index)

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(4)]
    for thread in readers:
        thread.start()
    freed = 0
    deadline = time.monotonic() + 60
    while freed < 600 * 8192 and time.monotonic() < deadline:
        freed += evict(filled.blobs[0], LATER, 16 * 8192)
    stop.set()
    for thread in readers:
        thread.join()
    assert not wrong
    assert freed >= 600 * 8192
    filled.close()


def test_a_disk_that_does_not_take_the_bits_keeps_the_bytes(tmp_path, monkeypatch):
    blob = blob_of(10)
    backend = MadeBackend(blob)
    filled = limited(blob, backend, tmp_path)
    read(filled, blob, *range(10))
    blocks = filled.blobs[0].file.path.stat().st_blocks

    def broken(fd: int) -> None:
        raise OSError(5, "the disk is broken")

    with monkeypatch.context() as patch:
        patch.setattr("nydusd.cache.durable.os.fsync", broken)
        with pytest.raises(OSError, match="broken"):
            evict(filled.blobs[0], LATER, ALL)
    assert filled.blobs[0].file.path.stat().st_blocks == blocks
    read(filled, blob, *range(10))
    filled.close()


def test_bits_are_on_the_disk_before_the_bytes_go(tmp_path, monkeypatch):
    blob = blob_of(10)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(10))
    blocks = filled.blobs[0].file.path.stat().st_blocks
    synced = []

    def fsync(fd: int) -> None:
        assert filled.blobs[0].file.path.stat().st_blocks == blocks
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().suffix[1:])

    monkeypatch.setattr("nydusd.cache.durable.os.fsync", fsync)
    evict(filled.blobs[0], LATER, ALL)
    assert {"chunk_map", "durable_map"} <= set(synced)
    filled.close()


def room_of(folder, limit: int, *devices: Device) -> CacheRoom:
    return CacheRoom(folder, limit, lambda: [blob for d in devices for blob in d.blobs])


def test_a_directory_comes_back_below_its_limit(tmp_path):
    blob = blob_of(300)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(300))
    room = room_of(tmp_path, LIMIT, filled)
    assert room.used() > LIMIT
    assert room.make_room() >= 300 * 8192 - LIMIT
    assert room.used() <= LIMIT
    assert room.make_room() == 0
    read(filled, blob, *range(300))
    filled.close()


def test_closed_blobs_go_before_what_was_read_later(tmp_path):
    old, new = blob_of(60, blob_id="a" * 64), blob_of(60, blob_id="c" * 64)
    first = limited(old, MadeBackend(old), tmp_path)
    read(first, old, *range(60))
    first.close()
    next_stamp()
    next_stamp()
    filled = limited(new, MadeBackend(new), tmp_path)
    read(filled, new, *range(60))
    room_of(tmp_path, 700_000, filled).make_room()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("a" * 64)]
    assert ready(filled) == list(range(60))
    filled.close()


def test_a_closed_blob_that_another_process_uses_stays(tmp_path):
    blob = blob_of(10)
    first = limited(blob, MadeBackend(blob), tmp_path)
    read(first, blob, *range(10))
    path = first.blobs[0].file.path
    first.close()
    with path.open("rb"):
        assert not remove_closed(path)
    assert remove_closed(path)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_room_in_use_is_told_once(tmp_path, caplog):
    blob = blob_of(300)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(300))
    room = room_of(tmp_path, LIMIT, filled)
    with filled.blobs[0].file.path.open("rb"):
        assert room.make_room() == 0
        assert room.make_room() == 0
    assert caplog.text.count("all of it is in use") == 1
    filled.close()


def test_a_directory_that_somebody_has_removed_holds_nothing(tmp_path):
    blob = blob_of(10)
    filled, room = roomy(blob, MadeBackend(blob), tmp_path / "gone")
    read(filled, blob, *range(10))
    assert room.used() > 0
    shutil.rmtree(tmp_path / "gone")

    assert room.used() == 0
    assert room.make_room() == 0
    room.close()
    filled.close()


def test_a_room_that_runs_keeps_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("nydusd.cache.room.LOOK_SECONDS", 0.01)
    blob = blob_of(300)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    room = room_of(tmp_path, LIMIT, filled)
    room.start()
    read(filled, blob, *range(300))
    deadline = 6000
    while room.used() > LIMIT and deadline:
        threading.Event().wait(0.01)
        deadline -= 1
    assert room.used() <= LIMIT
    room.close()
    read(filled, blob, *range(300))
    filled.close()


def roomy(blob: MadeBlob, backend: MadeBackend, folder) -> tuple[Device, CacheRoom]:
    """A device that asks a room for what it keeps, and that room, begun."""
    opened: list[CachedBlob] = []
    room = CacheRoom(folder, LIMIT, lambda: opened)
    room.start()
    settings = policy(folder)._replace(size_limit=LIMIT)
    opened.append(open_blob(blob.info, backend, settings, room=room.quota))
    return Device([*opened], 64 << 10, opened[0].close), room


def data_bytes(folder: Path) -> int:
    """What the data files in *folder* take on the disk."""
    return sum(path.stat().st_blocks * 512 for path in folder.glob("*.blob.data"))


def test_64_readers_never_bring_a_directory_past_its_limit(tmp_path, monkeypatch, caplog):
    # They may have all of it in use at one moment, which is logged.
    blob = blob_of(600)
    filled, room = roomy(blob, MadeBackend(blob), tmp_path)
    seen = []
    give = Quota.give

    def measured(self, size, *, written):
        seen.append(data_bytes(tmp_path))  # the writes of all threads up to here
        give(self, size, written=written)

    monkeypatch.setattr(Quota, "give", measured)
    wrong = []

    def reader(seed: int) -> None:
        wrong.extend(
            index
            for index in random.Random(seed).choices(range(600), k=30)
            if read_spans(filled, [blob.span(index)]) != blob.chunks[index]
        )

    readers = [threading.Thread(target=reader, args=(seed,)) for seed in range(64)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    deadline = time.monotonic() + 30
    while filled.snapshot()["kept_bytes"] <= LIMIT and time.monotonic() < deadline:
        reader(64)
    room.close()

    assert not wrong
    assert filled.snapshot()["kept_bytes"] > LIMIT  # some of it has gone again
    assert LIMIT // 2 < max(seen) <= LIMIT
    filled.close()


def test_what_does_not_fit_beside_what_others_use_is_read_and_not_kept(tmp_path, caplog):
    blob = blob_of(300)
    backend = MadeBackend(blob)
    filled, room = roomy(blob, backend, tmp_path)
    with filled.blobs[0].file.path.open("rb"):  # as another daemon has it
        read(filled, blob, *range(300))
        assert data_bytes(tmp_path) <= LIMIT
        assert len(ready(filled)) >= 80
        assert caplog.text.count("all of it is in use") == 1
        requests = len(backend.data_requests(blob))
        read(filled, blob, 299)
        assert len(backend.data_requests(blob)) == requests + 1
    assert room.make_room() > 0
    read(filled, blob, 299)
    assert 299 in ready(filled)
    room.close()
    filled.close()


def test_room_is_made_for_a_write_that_is_longer_than_what_is_spared(tmp_path):
    blob = blob_of(100)
    filled = limited(blob, MadeBackend(blob), tmp_path)
    read(filled, blob, *range(100))
    used = room_of(tmp_path, LIMIT, filled).used()
    room = room_of(tmp_path, used * 100 // 93, filled)  # below what makes it free by itself
    assert room.make_room() == 0
    assert not room.quota.take(room.limit // 8)
    assert room.make_room() > 0
    assert room.quota.take(room.limit // 8)
    filled.close()


def test_prefetch_ends_where_nothing_more_may_be_kept(tmp_path, caplog):
    blob = blob_of(3000)
    backend = MadeBackend(blob)
    filled, room = roomy(blob, backend, tmp_path)
    with filled.blobs[0].file.path.open("rb"):
        prefetcher = Prefetcher(filled, PREFETCH, everything=True)
        prefetcher.start()
        assert prefetcher.wait(30)
    asked = sum(size for _, size in backend.data_requests(blob))
    # What was under way when the first write was refused is no more than a few MiB.
    assert asked < blob.data_size // 2
    assert data_bytes(tmp_path) <= LIMIT
    prefetcher.close()
    room.close()
    filled.close()


def test_a_directory_without_a_limit_evicts_nothing(tmp_path):
    blob = blob_of(5)
    cached = open_blob(blob.info, MadeBackend(blob), policy(tmp_path))
    filled = Device([cached], 0, cached.close)
    read(filled, blob, *range(5))
    assert not cached.tracks_uses
    assert evict(cached, LATER, ALL) == 0
    filled.close()


def test_data_suffixes_are_those_of_both_kinds():
    assert DATA_SUFFIXES == (".blob.data", ".blob.raw")


def test_chunks_that_share_stored_bytes_go_together(tmp_path):
    chunks = [random.Random(i).randbytes(3000) for i in range(12)]
    blob = UnitBlob(chunks, 6, Compressor.NONE, units=(4, 4, 4))
    backend = MadeBackend(blob)
    filled = limited(blob, backend, tmp_path, compressed=True)
    read(filled, blob, *range(12))
    assert evict(filled.blobs[0], LATER, 1) == 12000
    assert ready(filled) == list(range(4, 12))
    read(filled, blob, *range(12))
    filled.close()


IN_OFFSET, IN_LEN = 0, 3  # of a context of a gzip layer
RECENT_BYTES = 8 << 20


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_stretches_of_a_layer_that_overlap_do_not_take_each_others_bytes(tmp_path, gone):
    chunks = [random.Random(i).randbytes(50_000) for i in range(3)]
    blob = ZranBlob(chunks, contexts=(1, 1, 1))
    for row in blob.table[:2]:
        row[IN_LEN] += 20_000  # as where a deflate block begins long before the next chunk
    blob.seal()
    blob.places = [
        (row[IN_OFFSET], row[IN_LEN], place[2])
        for row, place in zip(blob.table, blob.places, strict=True)
    ]
    backend = MadeBackend(blob)
    filled = limited(blob, backend, tmp_path, compressed=True)
    kept = [index for index in range(3) if index != gone]
    read(filled, blob, gone)
    old = stamp_now()
    next_stamp()
    read(filled, blob, *kept)
    assert evict(filled.blobs[0], old, ALL) > 0
    assert ready(filled) == kept
    requests = len(backend.data_requests(blob))
    remember_unit("another blob", 0, bytearray(RECENT_BYTES))  # and none of this one
    read(filled, blob, *kept)
    filled.close()
    filled = limited(blob, backend, tmp_path, compressed=True)
    read(filled, blob, *kept)
    assert len(backend.data_requests(blob)) == requests
    filled.close()
    forget_units("another blob")
