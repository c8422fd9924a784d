import gzip
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nydusd.base.errors import BootstrapError
from nydusd.build.check import FINDING_LENGTH_MAX, FINDINGS_MAX, check_image
from nydusd.build.create import create_image
from nydusd.build.create_options import CreateOptions
from nydusd.rafs.blobs import Compressor
from nydusd.rafs.load import load_bootstrap
from tests.build.golden_trees import TREES
from tests.hostile.structures import offsets_v5
from tests.rafs.made import (
    CHUNKS,
    DIRECTORY,
    PLAIN,
    REGULAR,
    BlobV6,
    ImageV5,
    ImageV6,
    InodeV5,
    dirents,
    inode_v6,
    root_v5,
)

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


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


LAYERS = sorted(path.name for path in (GOLDEN / "layers").iterdir() if path.is_dir())


@pytest.mark.parametrize("name", LAYERS)
def test_a_reference_to_a_layer_has_no_findings_with_its_blobs(name):
    folder = GOLDEN / "layers" / name

    assert check_image(folder / "bootstrap", folder / "blobs").findings == []


GOLDEN_IMAGES = sorted(
    path
    for path in (*(GOLDEN / "images").iterdir(), *(GOLDEN / "bootstraps").iterdir())
    if path.is_dir()
)


@pytest.mark.parametrize("folder", GOLDEN_IMAGES, ids=lambda folder: folder.name)
def test_a_golden_image_has_no_findings_with_its_blobs(folder):
    bootstrap = folder / "bootstrap"
    if not bootstrap.exists():
        (bootstrap,) = (folder / "blobs").iterdir()  # a blob that holds its own

    assert check_image(bootstrap, folder / "blobs").findings == []


def test_what_is_no_image_is_one_finding(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"no image" * 1000)

    assert len(check_image(file).findings) == 1


def findings_of(tmp_path: Path, raw: bytes) -> list[str]:
    """What check says of the bootstrap *raw*."""
    file = tmp_path / "made"
    file.write_bytes(raw)
    return check_image(file).findings


def test_all_faults_are_told_and_not_only_the_first(tmp_path):
    image = ImageV6()
    empty = image.add(inode_v6(REGULAR, 0, CHUNKS))
    block = dirents([(b".", 128, 2), (b"..", 7, 2), (b"c", empty, 1), (b"b", empty, 2)])
    image.set_root(inode_v6(DIRECTORY, len(block), PLAIN, image.add_block(block), nlink=0))

    found = findings_of(tmp_path, image.build())

    for what in ("0 links", "leads to inode 7", "stands behind c", "type 4", "counts 2 names"):
        assert any(what in line for line in found), (what, found)


def test_all_faults_of_v6_tables_are_told_and_not_only_the_first(tmp_path):
    bad = BlobV6(blob_id=b"../up", chunk_count=2**24 + 1, compressor=9)
    image = ImageV6(
        blobs=[BlobV6(), replace(bad, index=7)],
        superblock={"checksum": 1},
        extended={"chunk_size": 0x3000, "prefetch_size": 3},
    )

    found = findings_of(tmp_path, image.build())

    for what in (
        "superblock has a checksum",
        "chunk size 0x3000",
        "prefetch table has 3 bytes",
        "blob 0 has chunks of",
        "id of blob 1",
        "blob 1 has index 7",
        "16777217 chunks",
        "compressor of blob 1 has the unknown number 9",
    ):
        assert sum(what in line for line in found) >= 1, (what, found)
    with pytest.raises(BootstrapError, match="superblock has a checksum") as first:
        load_bootstrap(tmp_path / "made")
    assert str(first.value) == found[0]


def test_all_faults_of_v5_tables_are_told_and_not_only_the_first(tmp_path):
    table = b"\0" * 8 + b"../up" + b"\0" + b"\0" * 8 + b".."
    image = ImageV5(
        [root_v5(0)],
        blob_table=table,
        superblock={"chunk_size": 0x1800, "inodes": 2, "flags": 0x9 | 1 << 32},
    )

    found = findings_of(tmp_path, image.build())

    for what in ("chunk size", "2 inodes have 1 names", "flags", "id of blob 0", "id of blob 1"):
        assert sum(what in line for line in found) == 1, (what, found)
    with pytest.raises(BootstrapError, match="chunk size") as first:
        load_bootstrap(tmp_path / "made")
    assert str(first.value) == found[0]


def test_findings_of_tables_are_bounded(tmp_path):
    table = b"\0".join([b"\0" * 8 + b"a/b"] * (2 * FINDINGS_MAX))

    found = findings_of(tmp_path, ImageV5([root_v5(0)], blob_table=table).build())

    assert len(found) == FINDINGS_MAX + 1
    assert found[-1] == f"more than {FINDINGS_MAX} findings: the check ends here"


def test_findings_are_bounded_and_so_is_each(tmp_path):
    names = b"/" * 250
    inodes = [root_v5(2 * FINDINGS_MAX)]
    inodes += [InodeV5(names, REGULAR) for _ in range(2 * FINDINGS_MAX)]

    found = findings_of(tmp_path, ImageV5(inodes).build())

    assert len(found) == FINDINGS_MAX + 1
    assert found[-1] == f"more than {FINDINGS_MAX} findings: the check ends here"
    assert max(map(len, found)) <= FINDING_LENGTH_MAX


def test_directories_that_share_their_entries_are_walked_once(tmp_path):
    image = ImageV6()
    count = 10
    shared = image.add_block(dirents([(b".", 128, 2), (b"..", 128, 2)]).ljust(4096, b"\0"))
    first = image.add(inode_v6(DIRECTORY, 4096, PLAIN, shared, compact=True) * count)
    image.root_directory(
        [(b".", 128, 2), (b"..", 128, 2), *((b"%03d" % i, first + i, 2) for i in range(count))]
    )

    found = findings_of(tmp_path, image.build())

    assert sum("its data lies on other metadata" in line for line in found) == count - 1


def test_a_damaged_table_of_chunks_in_a_blob_is_found(tmp_path, reference_images):
    source = reference_images / "v6-tiny"
    blobs = tmp_path / "blobs"
    shutil.copytree(source / "blobs", blobs)
    (blob,) = load_bootstrap(source / "bootstrap").blobs
    raw = bytearray((blobs / blob.blob_id).read_bytes())
    raw[blob.ci_offset + blob.ci_compressed_size + 12] ^= 1  # entries, in the header
    (blobs / blob.blob_id).write_bytes(raw)

    (found,) = check_image(source / "bootstrap", blobs).findings

    assert "is not the one of the bootstrap" in found


def test_each_name_of_a_hard_link_has_a_digest_that_is_checked(tmp_path):
    good = gzip.decompress((GOLDEN / "builds" / "mixed-v5.boot.gz").read_bytes())
    records = enumerate(offsets_v5(good), 1)
    further = [
        at for index, at in records if good[at + 40 : at + 48] != index.to_bytes(8, "little")
    ]
    raw = bytearray(good)
    raw[further[-1]] ^= 1

    assert any("does not match its digest" in line for line in findings_of(tmp_path, bytes(raw)))


def test_a_bootstrap_larger_than_memory_is_a_finding_and_no_abort(tmp_path):
    image = ImageV6(blobs=[], superblock={"inos": 1})
    image.root_directory([(b".", 128, 2), (b"..", 128, 2)])
    file = tmp_path / "made"
    file.write_bytes(image.build())
    os.truncate(file, 1 << 43)

    findings = check_image(file).findings

    assert all("no memory to check it" in line for line in findings)  # none where it is lent
