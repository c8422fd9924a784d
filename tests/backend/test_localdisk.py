import os
import subprocess
from uuid import UUID

import pytest

from nydusd.backend.localdisk import LocalDiskBackend
from nydusd.backend.open import open_backend
from nydusd.base.errors import BackendError, ConfigError
from nydusd.config.model import Backend, LocalDisk
from tests.backend.disks import BASIC_DATA, Part, disk, for_blob
from tests.backend.reading import read

BLOB_ID = "0123456789abcdef" * 4
DATA = os.urandom(3000)


def backend_of(tmp_path, image: bytes, **more) -> LocalDiskBackend:
    path = tmp_path / "disk"
    path.write_bytes(image)
    return LocalDiskBackend(LocalDisk(device_path=str(path), **more))


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_blob_is_found_by_name_and_guid(tmp_path, sector):
    backend = backend_of(tmp_path, disk([Part(b"", "x"), for_blob(BLOB_ID, DATA)], sector))
    assert read(backend, BLOB_ID, 0, 3000) == DATA
    assert read(backend, BLOB_ID, 2990, 10) == DATA[2990:]
    reader = backend.reader(BLOB_ID)
    assert reader.size() == -(-3000 // sector) * sector
    backend.close()
    reader.read_into(bytearray(10), 0)  # a reader outlives its backend
    reader.close()
    reader.close()


@pytest.mark.parametrize("name", [BLOB_ID[:32], "app", "app-1234567890-1234567890-1234567890"])
def test_basic_data_is_found_by_its_name(tmp_path, name):
    backend = backend_of(tmp_path, disk([Part(DATA, name, kind=BASIC_DATA)]))
    blob_id = BLOB_ID if name == BLOB_ID[:32] else name
    assert read(backend, blob_id, 0, 3000) == DATA
    backend.close()


@pytest.mark.parametrize(
    "part",
    [
        Part(DATA, BLOB_ID[:36], kind=BASIC_DATA),
        Part(DATA, BLOB_ID[:31], kind=BASIC_DATA),
        Part(DATA, "", UUID(BLOB_ID[:32])),
        Part(DATA, BLOB_ID[:32], UUID(int=5)),
        Part(DATA, "", kind=BASIC_DATA),
    ],
)
def test_other_partitions_are_not_the_blob(tmp_path, part):
    backend = backend_of(tmp_path, disk([part]))
    for blob_id in (BLOB_ID, ""):
        with pytest.raises(BackendError, match="is in none of the"):
            backend.reader(blob_id)
    backend.close()


@pytest.mark.parametrize(("offset", "size"), [(3072, 1), (3000, 73), (1 << 62, 1), (0, 3073)])
def test_nothing_is_read_past_the_end_of_a_partition(tmp_path, offset, size):
    parts = [for_blob(BLOB_ID, DATA), Part(b"secret", "y")]
    backend = backend_of(tmp_path, disk(parts))
    with pytest.raises(BackendError, match=r"partition 1 of .* has 3072 bytes"):
        read(backend, BLOB_ID, offset, size)
    backend.close()


def test_a_disk_that_was_cut_is_a_backend_error(tmp_path):
    backend = backend_of(tmp_path, disk([for_blob(BLOB_ID, DATA)]))
    os.truncate(tmp_path / "disk", 18000)
    with pytest.raises(BackendError, match="the disk ends at 18000"):
        read(backend, BLOB_ID, 0, 3000)
    backend.close()


def test_two_partitions_with_one_id_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="partitions 1 and 3 are both blob 0123"):
        backend_of(
            tmp_path,
            disk([for_blob(BLOB_ID, DATA), Part(b"", "x"), for_blob(BLOB_ID, b"other")]),
        )


def test_without_a_table_the_disk_is_the_blob(tmp_path):
    backend = backend_of(tmp_path, DATA, disable_gpt=True)
    assert read(backend, "whatever", 1, 2999) == DATA[1:]
    assert backend.reader(BLOB_ID).size() == 3000
    backend.close()


def test_a_disk_without_a_table_is_refused_with_advice(tmp_path):
    with pytest.raises(ConfigError, match=r"invalid GPT signature.*needs `disable_gpt`"):
        backend_of(tmp_path, DATA)


def test_what_is_no_disk_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for path, what in [
        ("", "device_path"),
        ("/nonexist", "invalid disk device path /nonexist, No such file"),
        (str(tmp_path), "neither a block device nor a file"),
        (str(tmp_path / "fifo"), "neither a block device nor a file"),
        ("a\0b", "invalid disk device path"),
    ]:
        with pytest.raises(ConfigError, match=what):
            LocalDiskBackend(LocalDisk(device_path=path))


def test_the_configuration_opens_it(tmp_path):
    (tmp_path / "disk").write_bytes(disk([for_blob(BLOB_ID, DATA)]))
    backend = open_backend(
        Backend("localdisk", localdisk=LocalDisk(device_path=str(tmp_path / "disk")))
    )
    assert read(backend, BLOB_ID, 0, 3000) == DATA
    backend.close()
    with pytest.raises(ConfigError, match="its section"):
        open_backend(Backend("localdisk"))


@pytest.mark.root
@pytest.mark.parametrize("sector", [512, 4096])
def test_a_block_device_is_read_as_an_image_is(tmp_path, sector):
    path = tmp_path / "disk"
    image = disk([for_blob(BLOB_ID, DATA)], sector)
    path.write_bytes(image.ljust(-(-len(image) // 4096) * 4096, b"\0") if sector == 512 else image)
    made = subprocess.run(
        ["losetup", "--find", "--show", "--partscan", "--sector-size", str(sector), path],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        pytest.skip(f"no loop device to be had: {made.stderr.strip()}")
    device = made.stdout.strip()
    try:
        backend = LocalDiskBackend(LocalDisk(device_path=device))
        assert read(backend, BLOB_ID, 7, 2000) == DATA[7:2007]
        backend.close()
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
