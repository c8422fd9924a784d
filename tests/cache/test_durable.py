"""What of a cache directory is believed after kills, reboots and power cuts."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from nydusd.cache import durable, syncer
from nydusd.cache.blobfile import BlobFile
from nydusd.cache.durable import BrokenRecord, Header, read_header, write_header
from nydusd.cache.files import map_paths
from nydusd.cache.span_reader import read_spans
from tests.cache.made import MadeBackend, MadeBlob, device
from tests.cache.test_prefetch import wait_for

PUNCH_HOLE, KEEP_SIZE = 2, 1


@pytest.fixture
def boot(tmp_path, monkeypatch):
    """A function that reboots: what runs from now on finds another boot id."""
    path = tmp_path / "boot_id"
    monkeypatch.setattr(durable, "BOOT_ID", path)
    count = 0

    def reboot() -> None:
        nonlocal count
        count += 1
        path.write_text(f"{count:08x}-0000-4000-8000-{count:012x}\n")

    reboot()
    return reboot


@pytest.fixture
def blob():
    return MadeBlob([bytes([65 + n]) * 5000 for n in range(12)], with_crc=False)


@pytest.fixture
def backend(blob):
    return MadeBackend(blob)


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "cache"
    path.mkdir()
    return path


def read(blob, backend, folder, indexes, **kept):
    """Open the blob in *folder*, read chunks, close; chunks that were fetched for it."""
    opened = device(blob, backend, folder, **kept)
    try:
        return fetched(opened, blob, backend, indexes)
    finally:
        opened.close()


def fetched(opened, blob, backend, indexes):
    """Chunks that the backend was asked for while *indexes* were read from *opened*."""
    before = len(backend.data_requests(blob))
    for index in indexes:
        assert read_spans(opened, [blob.span(index)]) == blob.chunks[index]
    starts = [place[0] for place in blob.places]
    return [starts.index(offset) for offset, _ in backend.data_requests(blob)[before:]]


def files(folder, blob):
    paths = map_paths(folder, blob.blob_id)
    return paths, folder / f"{blob.blob_id}.blob.data"


def test_in_one_boot_every_bit_counts(boot, blob, backend, folder):
    first = device(blob, backend, folder)
    assert fetched(first, blob, backend, [0, 3]) == [0, 3]
    # Not closed, nothing synced: as good as killed.
    assert read(blob, backend, folder, range(5)) == [1, 2, 4]
    first.close()


def test_after_a_reboot_chunks_that_were_synced_count_and_no_others(boot, blob, backend, folder):
    opened = device(blob, backend, folder)
    assert fetched(opened, blob, backend, [0, 3]) == [0, 3]
    opened.blobs[0].durable.sync()
    assert fetched(opened, blob, backend, [5, 6]) == [5, 6]
    crashed = shutil.copytree(folder, folder.with_name("crashed"))
    same_file(folder, crashed, blob)
    opened.close()
    boot()
    assert read(blob, backend, crashed, range(8)) == [1, 2, 4, 5, 6, 7]
    assert read(blob, backend, crashed, range(8)) == []
    boot()
    assert read(blob, backend, crashed, range(8)) == []


def same_file(folder, copy, blob):
    """Let the record in *copy* be about the files there: a power cut copies nothing."""
    paths, data = files(copy, blob)
    fd = os.open(paths.record, os.O_RDWR)
    header = read_header(fd, len(blob.chunks))
    write_header(
        fd,
        header._replace(
            data=durable.file_identity(data), chunk_map=durable.file_identity(paths.chunk_map)
        ),
    )
    os.close(fd)


def test_a_map_full_of_promises_counts_after_a_reboot_only_where_synced(
    boot, blob, backend, folder
):
    assert read(blob, backend, folder, range(12)) == list(range(12))
    read(blob, backend, folder, [])  # writes the all-ready marker
    paths, _ = files(folder, blob)
    assert paths.chunk_map.read_bytes()[12:16] == b"PAMM"
    with paths.record.open("r+b") as record:
        record.seek(4096)
        record.write(b"\xf0\x00")
    boot()
    assert read(blob, backend, folder, range(12)) == list(range(4, 12))


def test_a_directory_of_another_daemon_counts_but_for_holes(boot, blob, backend, folder):
    read(blob, backend, folder, range(12))
    paths, data = files(folder, blob)
    paths.record.unlink()
    paths.older_name.unlink()
    paths.chunk_map.rename(paths.older_name)  # as 2.2 names it
    boot()
    punch(data, blob.places[4][2], 8192)
    assert read(blob, backend, folder, range(12)) == [4]
    assert paths.chunk_map.samefile(paths.older_name)


def punch(path: Path, offset: int, size: int) -> None:
    """Take the blocks away that lie at *offset*."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDWR)
    try:
        if libc.fallocate64(fd, PUNCH_HOLE | KEEP_SIZE, ctypes.c_long(offset), ctypes.c_long(size)):
            number = ctypes.get_errno()
            if number == errno.EOPNOTSUPP:
                pytest.skip("the file system cannot punch holes")
            raise OSError(number, os.strerror(number))
    finally:
        os.close(fd)


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "compressed"])
def test_a_hole_under_an_open_blob_is_noticed_and_fetched_again(boot, folder, compressed):
    blob = MadeBlob([os.urandom(9000) for _ in range(8)], with_crc=False)
    backend = MadeBackend(blob)
    opened = device(blob, backend, folder, compressed=compressed)
    assert fetched(opened, blob, backend, range(8)) == list(range(8))
    kind = "raw" if compressed else "data"
    opened.blobs[0].durable.look(changed=False)
    punch(folder / f"{blob.blob_id}.blob.{kind}", blob.places[2][0 if compressed else 2], 8192)
    opened.blobs[0].durable.look(changed=False)  # what the thread does when the file changes
    assert 2 in fetched(opened, blob, backend, range(8))
    assert fetched(opened, blob, backend, range(8)) == []
    opened.close()


def test_a_hole_is_noticed_when_it_is_made(boot, folder, monkeypatch):
    monkeypatch.setattr(syncer, "SYNC_INTERVAL_S", 3600.0)
    blob = MadeBlob([b"\xee" * 9000 for _ in range(8)], with_crc=False)
    opened = device(blob, MadeBackend(blob), folder)
    for index in (2, 5, 2):
        assert read_spans(opened, blob.spans()) == blob.content
        punch(folder / f"{blob.blob_id}.blob.data", blob.places[index][2], 8192)
        assert wait_for(lambda: read_spans(opened, blob.spans()) == blob.content)
    opened.close()


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_data_file_that_is_not_in_place_any_more_is_used_up_alone(
    boot, blob, backend, folder, caplog, how
):
    opened = device(blob, backend, folder)
    assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    paths, data = files(folder, blob)
    if how == "deleted":
        data.unlink()
    else:
        other = data.with_name("other")
        other.write_bytes(os.urandom(data.stat().st_size))
        other.replace(data)
    opened.blobs[0].durable.look(changed=False)
    before = paths.chunk_map.read_bytes()
    for _ in range(2):  # the kernel may tell more than once that the name has gone
        opened.blobs[0].durable.look(changed=True)
    assert fetched(opened, blob, backend, [0, 1, 2]) == [2]
    assert paths.chunk_map.read_bytes() == before
    assert "is not the file that is open any more" in caplog.text
    assert read(blob, backend, folder, [0, 1, 2]) == [0, 1, 2]
    opened.close()


def test_a_map_is_not_believed_for_a_data_file_made_after_it(boot, blob, backend, folder):
    """The data file was deleted and made anew with some chunks, as the reference would."""
    read(blob, backend, folder, range(6))
    _, data = files(folder, blob)
    data.unlink()
    fresh = BlobFile(data, len(blob.plain))
    with data.open("r+b") as file:
        file.write(bytes(len(blob.plain)))  # no holes: only the record can tell
    fresh.close()
    assert read(blob, backend, folder, range(6)) == list(range(6))


def test_a_map_made_with_the_new_data_file_is_believed(boot, blob, backend, folder):
    read(blob, backend, folder, range(6))
    paths, data = files(folder, blob)
    record = paths.record.read_bytes()
    for path in (data, *paths):
        path.unlink()
    read(blob, backend, folder, range(3))
    paths.record.write_bytes(record)  # the old one: about neither of them
    assert read(blob, backend, folder, range(6)) == [3, 4, 5]


@pytest.mark.parametrize("content", [b"x" * 4098, b"NDDR" + bytes(60), b"x"])
def test_what_stands_beside_a_broken_record_is_fetched_again(
    boot, blob, backend, folder, caplog, content
):
    read(blob, backend, folder, range(12))
    paths, _ = files(folder, blob)
    paths.record.write_bytes(content)
    assert read(blob, backend, folder, range(12)) == list(range(12))
    assert "is broken" in caplog.text
    assert read(blob, backend, folder, range(12)) == []


@pytest.mark.parametrize("size", [0, 4098])
def test_a_record_whose_creator_died_says_nothing(boot, blob, backend, folder, size):
    read(blob, backend, folder, range(12))
    paths, _ = files(folder, blob)
    paths.record.write_bytes(bytes(size))
    assert read(blob, backend, folder, range(12)) == []
    boot()
    assert read(blob, backend, folder, range(12)) == []


def test_somebody_who_hangs_while_opening_holds_nobody_up_for_long(
    boot, blob, backend, folder, monkeypatch
):
    monkeypatch.setattr(durable, "LOCK_TIMEOUT_S", 0.05)
    paths, _ = files(folder, blob)
    paths.record.parent.mkdir()
    with paths.record.open("w+b") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert read(blob, backend, folder, [0, 1]) == [0, 1]
        assert read(blob, backend, folder, [0, 1]) == []


def test_a_data_file_whose_sync_fails_is_not_used_any_more(
    boot, blob, backend, folder, caplog, monkeypatch
):
    opened = device(blob, backend, folder)
    assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    kept = opened.blobs[0].durable

    class Failing:
        path = "the data file"

        def __init__(self, file):
            self.file = file

        def sync(self):
            raise OSError(errno.EIO, "Input/output error")

        def __getattr__(self, name):
            return getattr(self.file, name)

    monkeypatch.setattr(kept, "_file", Failing(opened.blobs[0].file))
    kept.sync()
    assert "the data file: [Errno 5]" in caplog.text
    assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    paths, _ = files(folder, blob)
    assert not paths.chunk_map.exists()
    opened.close()
    assert read(blob, backend, folder, [0, 1]) == [0, 1]


def test_an_open_blob_has_its_record_and_says_what_it_is_about(boot, blob, backend, folder):
    opened = device(blob, backend, folder)
    paths, _ = files(folder, blob)
    fd = os.open(paths.record, os.O_RDONLY)
    assert read_header(fd, 12) == Header(
        12,
        durable.boot_id(),
        opened.blobs[0].file.identity(),
        durable.file_identity(paths.chunk_map),
    )
    os.close(fd)
    opened.close()


def test_a_record_of_another_blob_is_broken(tmp_path):
    path = tmp_path / "record"
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    write_header(fd, Header(8, bytes(16), b"data", b"map"))
    assert read_header(fd, 8) == Header(8, bytes(16), b"data", b"map")
    with pytest.raises(BrokenRecord, match="begins with"):
        read_header(fd, 7)
    with pytest.raises(BrokenRecord, match="4097 bytes"):
        read_header(fd, 9)
    os.close(fd)


def test_a_data_file_that_was_cut_is_not_made_long_again_by_the_next_fetch(
    boot, blob, backend, folder, caplog
):
    opened = device(blob, backend, folder)
    assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    _, data = files(folder, blob)
    os.truncate(data, 0)
    assert fetched(opened, blob, backend, [9, 0, 1]) == [9, 0, 1]
    assert data.stat().st_size == 0
    opened.close()
    assert read(blob, backend, folder, [9, 0, 1]) == [9, 0, 1]


def test_a_disk_that_does_not_give_bytes_back_is_asked_no_more(boot, blob, backend, folder):
    """The descriptor is one that can be written and not be read: pread fails with EBADF."""
    opened = device(blob, backend, folder, compressed=True)
    assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    data = folder / f"{blob.blob_id}.blob.raw"
    (number,) = (
        int(link.name)
        for link in Path("/proc/self/fd").iterdir()
        if link.is_symlink() and os.path.realpath(link) == str(data)
    )
    broken = os.open(data, os.O_WRONLY)
    os.dup2(broken, number, inheritable=False)
    os.close(broken)
    for _ in range(2):
        assert fetched(opened, blob, backend, [0, 1]) == [0, 1]
    opened.close()
