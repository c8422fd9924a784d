import os
import shutil
from pathlib import Path

import pytest

from nydusd.base.errors import BootstrapError
from nydusd.rafs.load import blob_id_of_path, bootstrap_of_bytes, load_bootstrap
from nydusd.rafs.toc import BOOTSTRAP_SECTION, find_sections, open_section
from tests.rafs.exercise import GOLDEN
from tests.rafs.made import BlobV6, ImageV6, tar_header

INLINED = min((GOLDEN / "bootstraps" / "v6-inline-toc" / "blobs").iterdir())
X_ID = b"x" * 64


def inlined_image() -> bytes:
    image = ImageV6(blobs=[BlobV6(X_ID, features=0x50000003)])
    image.root_directory([(b".", 128, 2)])
    return image.build()


@pytest.mark.parametrize(
    "path", sorted(GOLDEN.glob("*/v?-*/bootstrap")), ids=lambda path: path.parent.name
)
def test_a_bootstrap_is_known_by_its_magic(path: Path) -> None:
    assert load_bootstrap(path).version == int(path.parent.name[1])


def test_a_blob_with_a_table_of_contents_gives_its_bootstrap() -> None:
    bootstrap = load_bootstrap(INLINED)

    assert bootstrap.find(b"/sub/link") > 0
    assert [blob.blob_id for blob in bootstrap.blobs] == [INLINED.name]
    assert [blob.meta_blob_id for blob in bootstrap.blobs] == [INLINED.name]


def test_a_blob_with_a_plain_bootstrap_gives_it(tmp_path: Path) -> None:
    boot = inlined_image()
    path = tmp_path / "0123abcd"
    path.write_bytes(b"data" + boot + tar_header(b"image.boot", b"%011o" % len(boot)))

    assert load_bootstrap(path).blobs[0].blob_id == "0123abcd"


def test_a_blob_without_data_is_not_taken_for_its_bootstrap(tmp_path: Path) -> None:
    image = ImageV6(blobs=[])
    image.root_directory([(b"name", 128, 2)])
    boot = image.build()
    path = tmp_path / "blob"
    path.write_bytes(boot + tar_header(b"image.boot", b"%011o" % len(boot)))

    assert load_bootstrap(path).find(b"/name") == 128


def test_an_extracted_bootstrap_is_named_by_its_file(tmp_path: Path) -> None:
    path = tmp_path / "0123abcd.image.boot"
    path.write_bytes(inlined_image())

    assert load_bootstrap(path).blobs[0].blob_id == "0123abcd"
    assert bootstrap_of_bytes(inlined_image(), "x/ffff").blobs[0].blob_id == "ffff"


def test_a_file_name_gives_the_id_before_its_first_dot() -> None:
    assert blob_id_of_path("/a.b/0123.image.boot") == "0123"
    assert blob_id_of_path("0123") == "0123"


@pytest.mark.parametrize("content", [b"", b"SFAR", b"{}", bytes(10_000)])
def test_another_file_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "other"
    path.write_bytes(content)

    with pytest.raises(BootstrapError, match=f"{path}: "):
        load_bootstrap(path)


def test_a_damaged_inlined_bootstrap_is_refused(tmp_path: Path) -> None:
    data = bytearray(INLINED.read_bytes())
    section = find_sections(bytes(data[-3072:]), len(data))[BOOTSTRAP_SECTION]
    whole = bytes(data[section.offset : section.offset + section.compressed_size])
    assert len(open_section(section, whole)) == section.uncompressed_size
    data[section.offset + 40] ^= 0xFF
    path = tmp_path / INLINED.name
    path.write_bytes(data)

    with pytest.raises(BootstrapError, match="a blob, but"):
        load_bootstrap(path)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    for path in (fifo, tmp_path):
        with pytest.raises(BootstrapError, match="not a regular file"):
            load_bootstrap(path)


def test_a_missing_file_is_told_as_the_system_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_bootstrap(tmp_path / "none")


def test_digests_are_checked_when_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "bootstrap"
    shutil.copy(GOLDEN / "images" / "v5-none" / "bootstrap", path)
    bootstrap = load_bootstrap(path, validate=True)
    with path.open("r+b") as file:
        data = file.read()
        at = data.index(b"nowhere\0")
        file.seek(at)
        file.write(b"somewhe")

    with pytest.raises(OSError, match="Input/output error"):
        bootstrap.entries(bootstrap.root_ino)
    assert "does not match its digest" in caplog.text
