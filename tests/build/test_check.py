from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nydusd.build.check import FINDINGS_MAX, check_image
from nydusd.build.create import create_image
from nydusd.build.create_options import CreateOptions
from nydusd.rafs.blobs import Compressor
from tests.build.golden_trees import TREES


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    made = {}
    for version in (5, 6):
        folder = tmp_path_factory.mktemp("images")
        source = folder / "source"
        source.mkdir()
        TREES["mixed"](source)
        options = CreateOptions(
            source=source,
            bootstrap=folder / "boot",
            blob=folder / "blob",
            version=version,
            compressor=Compressor.NONE,
        )
        create_image(options)
        made[version] = folder / "boot"
    return made


@pytest.mark.parametrize("version", [5, 6])
def test_a_good_image_has_no_findings_and_every_name_is_met(images, version):
    told: list[str] = []

    report = check_image(images[version], tell=told.append)

    assert report.findings == []
    assert report.names == len([line for line in told if line.startswith("inode: ")])
    assert any(line.startswith("\t chunk: ") for line in told)


@pytest.mark.parametrize("version", [5, 6])
@given(data=st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_check_comes_to_an_end(images, tmp_path, version, data, caplog):
    raw = bytearray(images[version].read_bytes())
    for _ in range(data.draw(st.integers(1, 20))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw[:cut])

    report = check_image(damaged)

    assert len(report.findings) <= FINDINGS_MAX + 1


def test_a_flipped_digest_of_v5_is_found(images, tmp_path):
    raw = bytearray(images[5].read_bytes())
    place = raw.rfind(b"level-39") - 128  # of its inode record, which begins with the digest
    raw[place] ^= 1
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw)

    assert any("does not match its digest" in line for line in check_image(damaged).findings)


def test_a_short_blob_is_found_in_its_directory(images, tmp_path):
    report = check_image(images[6])
    (tmp_path / report.blobs[0].blob_id).write_bytes(b"short")

    found = check_image(images[6], tmp_path).findings

    assert len(found) == 1
    assert "has 5 bytes, its image needs" in found[0]


def test_what_is_no_image_is_one_finding(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"no image" * 1000)

    assert len(check_image(file).findings) == 1
