import gzip
import json
import os
import shutil
import stat
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nydusd.base.errors import BootstrapError, BuildError
from nydusd.build.check import check_image
from nydusd.build.create import create_image
from nydusd.build.create_options import CreateOptions
from nydusd.build.overlay import WhiteoutSpec
from nydusd.build.prefetch import PrefetchPolicy
from nydusd.rafs.blobs import Compressor, Digester
from nydusd.rafs.load import load_bootstrap
from nydusd.rafs.writing import HEAD
from tests.build.golden_trees import BUILDS, IMAGES, TREES, sha256_of
from tests.build.readback import ImageReader
from tests.strategies import Tree, make, trees

COMPRESSORS = {each.name.lower(): each for each in Compressor}
DIGESTERS = {each.name.lower(): each for each in Digester}
DIGESTS = json.loads((BUILDS / "digests.json").read_text())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


def options_for(source: Path, **changes: object) -> CreateOptions:
    """Options that put bootstrap and blob beside *source*."""
    options = CreateOptions(
        source=source, bootstrap=source.parent / "boot", blob=source.parent / "blob"
    )
    return replace(options, **changes)


def options_of_words(source: Path, words: list[str]) -> CreateOptions:
    """The options that the golden images' command lines mean."""
    options = options_for(source, explicit_uid_gid=False)
    pairs = iter(words)
    for word in pairs:
        if word == "--aligned-chunk":
            options = replace(options, aligned_chunk=True)
            continue
        value = next(pairs)
        change = {
            "-v": {"version": int(value)} if word == "-v" else {},
            "--compressor": {"compressor": COMPRESSORS.get(value)},
            "--digester": {"digester": DIGESTERS.get(value)},
            "--chunk-size": {"chunk_size": int(value, 16)} if word == "--chunk-size" else {},
            "--features": {"blob_toc": True},
        }[word]
        options = replace(options, **change)
    return options


def without_root_time(tree: Tree) -> Tree:
    """*tree* as an image shows it: the root's time is left out."""
    return replace(tree, mtime_ns=0)


@pytest.mark.parametrize("name", IMAGES)
def test_an_uncompressed_image_is_the_references_byte_for_byte(source, name):
    tree, words = IMAGES[name]
    try:
        TREES[tree](source)
    except OSError as exc:
        pytest.skip(f"{source} cannot hold the tree {tree!r}: {exc}")
    options = options_of_words(source, words)

    create_image(options)

    kept = BUILDS / f"{name}.boot.gz"
    if kept.exists():
        assert options.bootstrap.read_bytes() == gzip.decompress(kept.read_bytes())
    assert sha256_of(options.bootstrap) == DIGESTS[name]["boot"]
    assert sha256_of(options.blob) == DIGESTS[name]["blob"]


@given(
    tree=trees(),
    version=st.sampled_from([5, 6]),
    compressor=st.sampled_from([Compressor.NONE, Compressor.LZ4_BLOCK, Compressor.ZSTD]),
    digester=st.sampled_from(Digester),
    chunk_size=st.sampled_from([0x1000, 0x10000, 0x100000]),
    revision=st.sampled_from([HEAD, CreateOptions.__dataclass_fields__["revision"].default]),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
def test_an_image_gives_its_tree_back(tree, version, compressor, digester, chunk_size, revision):
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "source"
        make(tree, source)
        options = options_for(
            source,
            version=version,
            compressor=compressor,
            digester=digester,
            chunk_size=chunk_size,
            revision=revision,
        )

        create_image(options)

        assert check_image(options.bootstrap).findings == []
        assert ImageReader(options.bootstrap, options.blob).tree() == without_root_time(tree)


@pytest.mark.parametrize("compressor", ["none", "lz4_block", "zstd"])
@pytest.mark.parametrize("version", [5, 6])
def test_the_reference_accepts_our_images(source, version, compressor):
    reference = os.environ.get("NYDUS_IMAGE")
    if not reference:
        pytest.skip("NYDUS_IMAGE names no nydus-image of the reference to check with")
    TREES["mixed"](source)
    options = options_for(source, version=version, compressor=COMPRESSORS[compressor])

    create_image(options)

    done = subprocess.run([reference, "check", options.bootstrap], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "RAFS filesystem metadata is valid" in done.stdout


def test_the_worked_example_of_the_format_is_what_the_head_revision_writes(source):
    """Offsets and values of rafs-format 5.12, whose builder is newer than 2.2."""
    TREES["tiny"](source)
    options = options_for(
        source, compressor=Compressor.NONE, digester=Digester.SHA256, revision=HEAD
    )

    create_image(options)

    data = options.bootstrap.read_bytes()
    assert len(data) == 20480
    assert data[0x400:0x410].hex() == "e2e1f5e000000000000000400c008000"
    assert data[0x480:0x488].hex() == "1900000100000000"
    assert data[0x5C0:0x5C8].hex() == "0100000080000000"
    assert data[0x30C0:0x30C8].hex() == "0000010000000000"
    assert data[0x4020:0x4028].hex() == "0000000010000000"


def test_the_v5_worked_example_has_a_crc_in_the_head_revision(source):
    TREES["tiny"](source)
    options = options_for(
        source, version=5, compressor=Compressor.NONE, digester=Digester.SHA256, revision=HEAD
    )

    create_image(options)

    data = options.bootstrap.read_bytes()
    assert len(data) == 8976
    assert data[0x10:0x20].hex() == "19000000000000000400000000000000"
    assert data[0x2000:0x2010].hex() == "13040000240400003f04000050040000"
    assert data[0x21A8 + 36 : 0x21A8 + 40].hex() == "10000000"


def test_equal_files_are_stored_once(source):
    data = os.urandom(50_000)
    for name in ("a", "b", "c"):
        (source / name).write_bytes(data)
    options = options_for(source, compressor=Compressor.NONE, version=5)

    create_image(options)

    assert options.blob.stat().st_size == len(data)


@pytest.mark.parametrize("version", [5, 6])
def test_a_file_of_more_than_4_gib_is_packed(source, version):
    size = (4 << 30) + 12345
    with (source / "huge").open("wb") as file:
        file.truncate(size)
        file.seek(size - 5)
        file.write(b"tail!")
    options = options_for(source, version=version, chunk_size=0x1000000)

    create_image(options)

    bootstrap = load_bootstrap(options.bootstrap)
    ino = bootstrap.find(b"/huge")
    assert bootstrap.stat(ino).size == size
    assert sum(span.length for span in bootstrap.chunk_spans(ino)) == size
    assert bootstrap.blobs[0].chunk_count == 2
    assert check_image(options.bootstrap).findings == []


@pytest.mark.parametrize("version", [5, 6])
def test_many_entries_and_deep_trees_are_packed(source, version):
    for number in range(5000):
        (source / f"entry-{number}").write_bytes(b"")
    deep = source
    for level in range(300):
        deep = deep / f"d{level}"
        deep.mkdir()
    (deep / "leaf").write_bytes(b"leaf")
    options = options_for(source, version=version)

    create_image(options)

    report = check_image(options.bootstrap)
    assert report.findings == []
    assert report.names == 1 + 5000 + 300 + 1


def test_more_chunks_than_16_bits_count_are_addressed(source):
    count = 66_000
    with (source / "numbers").open("wb") as file:
        file.writelines(b"%4096d" % number for number in range(count))
    options = options_for(source, compressor=Compressor.NONE, chunk_size=0x1000)

    create_image(options)

    reader = ImageReader(options.bootstrap, options.blob)
    assert reader.bootstrap.blobs[0].chunk_count == count
    last = list(reader.bootstrap.chunk_spans(reader.bootstrap.find(b"/numbers")))[-1]
    assert last.chunk_index == count - 1
    assert check_image(options.bootstrap).findings == []


def test_a_source_without_data_makes_no_blob(source, tmp_path):
    (source / "empty").write_bytes(b"")
    blobs = tmp_path / "blobs"
    blobs.mkdir()

    result = create_image(options_for(source, blob=None, blob_dir=blobs))

    assert result.blobs == []
    assert result.blob_size is None
    assert list(blobs.iterdir()) == []


def test_files_in_a_blob_directory_are_called_by_their_digests(source, tmp_path):
    (source / "file").write_bytes(b"data")
    blobs = tmp_path / "blobs"
    blobs.mkdir()

    result = create_image(options_for(source, blob=None, bootstrap=None, blob_dir=blobs))

    assert sorted(path.name for path in blobs.iterdir()) == sorted(
        sha256_of(path) for path in blobs.iterdir()
    )
    assert result.bootstrap is not None
    assert result.bootstrap.parent == blobs


@pytest.mark.parametrize("blob_toc", [False, True])
def test_a_blob_with_its_bootstrap_inside_can_be_loaded(source, tmp_path, blob_toc):
    TREES["mixed"](source)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    options = options_for(
        source,
        bootstrap=None,
        blob=None,
        blob_dir=blobs,
        inline_meta=True,
        blob_toc=blob_toc,
        revision=HEAD,
    )

    result = create_image(options)

    assert result.bootstrap is None
    blob = blobs / result.blobs[0]
    assert sha256_of(blob) == blob.name
    bootstrap = load_bootstrap(blob)
    assert [info.blob_id for info in bootstrap.blobs] == result.blobs
    assert check_image(blob).findings == []


def test_hard_links_share_an_inode_and_their_data(source):
    (source / "one").write_bytes(os.urandom(5000))
    os.link(source / "one", source / "two")
    options = options_for(source, compressor=Compressor.NONE)

    create_image(options)

    bootstrap = load_bootstrap(options.bootstrap)
    assert bootstrap.find(b"/one") == bootstrap.find(b"/two")
    assert bootstrap.stat(bootstrap.find(b"/one")).nlink == 2


def test_repeatable_images_belong_to_root(source):
    (source / "file").write_bytes(b"x")
    options = options_for(source, explicit_uid_gid=False)

    create_image(options)

    first = options.bootstrap.read_bytes()
    create_image(options)
    assert options.bootstrap.read_bytes() == first


def test_a_layer_removes_hides_and_replaces_what_is_below(source, tmp_path):
    (source / "keep").write_bytes(b"keep")
    (source / "gone").write_bytes(b"gone")
    (source / "opaque").mkdir()
    (source / "opaque" / "hidden").write_bytes(b"hidden")
    (source / "changed").write_bytes(b"old")
    lower = options_for(source, compressor=Compressor.NONE)
    create_image(lower)
    upper = tmp_path / "upper"
    (upper / "opaque").mkdir(parents=True)
    (upper / ".wh.gone").write_bytes(b"")
    (upper / "opaque" / ".wh..wh..opq").write_bytes(b"")
    (upper / "opaque" / "new").write_bytes(b"new")
    (upper / "changed").write_bytes(b"new content")
    options = replace(
        lower,
        source=upper,
        bootstrap=tmp_path / "layered",
        blob=tmp_path / "layer",
        parent_bootstrap=lower.bootstrap,
    )

    result = create_image(options)

    bootstrap = load_bootstrap(options.bootstrap)
    paths = sorted(path for path, _ in bootstrap.walk())
    assert paths == [b"/", b"/changed", b"/keep", b"/opaque", b"/opaque/new"]
    assert len(result.blobs) == 2
    assert check_image(options.bootstrap).findings == []


def test_a_chunk_dictionary_saves_the_data_it_has(source, tmp_path):
    data = os.urandom(20_000)
    (source / "file").write_bytes(data)
    dictionary = options_for(source, compressor=Compressor.NONE)
    known = create_image(dictionary)
    other = tmp_path / "other"
    other.mkdir()
    (other / "same").write_bytes(data)
    options = replace(
        dictionary,
        source=other,
        bootstrap=tmp_path / "second",
        blob=tmp_path / "second-blob",
        chunk_dict=dictionary.bootstrap,
    )

    result = create_image(options)

    assert result.blobs == known.blobs
    assert options.blob.stat().st_size == 0


def test_a_parent_of_another_chunk_size_is_refused(source, tmp_path):
    (source / "file").write_bytes(b"x")
    parent = options_for(source)
    create_image(parent)

    with pytest.raises(BuildError, match="chunk size is 1048576, this build's is 4096"):
        create_image(
            replace(
                parent,
                bootstrap=tmp_path / "second",
                chunk_size=0x1000,
                parent_bootstrap=parent.bootstrap,
            )
        )


@pytest.mark.parametrize("version", [5, 6])
def test_prefetched_files_stand_first_in_the_blob(source, version):
    for name in ("a", "b", "c"):
        (source / name).write_bytes(name.encode() * 5000)
    options = options_for(
        source,
        version=version,
        compressor=Compressor.NONE,
        prefetch_policy=PrefetchPolicy.FS,
        prefetch_patterns=(b"/c\n",),
    )

    create_image(options)

    assert options.blob.read_bytes().startswith(b"c" * 5000 + b"a" * 5000)
    bootstrap = load_bootstrap(options.bootstrap)
    assert bootstrap.prefetch_inos == [bootstrap.find(b"/c")]


def test_prefetching_many_files_packs_all_the_others_too(source):
    for number in range(3000):
        (source / f"{number:05d}").write_bytes(b"%d" % number * 10)
    options = options_for(
        source,
        version=5,
        compressor=Compressor.NONE,
        prefetch_policy=PrefetchPolicy.BLOB,
        prefetch_patterns=(b"/02999\n",),
    )

    create_image(options)

    bootstrap = load_bootstrap(options.bootstrap)
    assert bootstrap.blobs[0].chunk_count == 3000
    assert bootstrap.blobs[0].prefetch_size == 40
    assert check_image(options.bootstrap).findings == []


def test_whiteouts_of_a_first_layer_do_not_show(source):
    (source / ".wh.name").write_bytes(b"")
    (source / "file").write_bytes(b"x")

    for spec, expected in ((WhiteoutSpec.OCI, 2), (WhiteoutSpec.NONE, 3)):
        options = options_for(source, whiteout_spec=spec)
        create_image(options)
        assert check_image(options.bootstrap).names == expected


def test_a_file_that_changes_while_it_is_packed_is_an_error(source, monkeypatch):
    (source / "file").write_bytes(b"before")
    from nydusd.build import create

    scan = create.tree_from_directory

    def scan_and_change(*arguments: object):
        root = scan(*arguments)
        (source / "file").write_bytes(b"afterwards")
        return root

    monkeypatch.setattr(create, "tree_from_directory", scan_and_change)

    with pytest.raises(BuildError, match="file: changed while it was packed"):
        create_image(options_for(source))


def test_a_file_that_vanishes_while_it_is_packed_is_an_error(source, monkeypatch):
    for number in range(3000):
        (source / f"{number:05d}").write_bytes(b"%d" % number)
    from nydusd.build import create

    scan = create.tree_from_directory

    def scan_and_remove(*arguments: object):
        root = scan(*arguments)
        (source / "02000").unlink()
        return root

    monkeypatch.setattr(create, "tree_from_directory", scan_and_remove)

    with pytest.raises(BuildError, match="02000: cannot be read: No such file"):
        create_image(options_for(source))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("size", [10, 80 << 20])
def test_a_full_disk_is_an_error(source, size):
    (source / "file").write_bytes(os.urandom(size))

    with pytest.raises(BuildError, match="No space left"):
        create_image(options_for(source, blob=Path("/dev/full"), compressor=Compressor.NONE))


@pytest.mark.root
def test_devices_owners_and_attributes_are_kept(source):
    os.mknod(source / "char", stat.S_IFCHR | 0o600, os.makedev(1, 70_000))
    (source / "file").write_bytes(b"x")
    os.chown(source / "file", 70_000, 2**31)
    try:
        os.setxattr(source / "file", "trusted.b", b"2")
        os.setxattr(source / "file", "user.a", b"")
    except OSError as exc:
        pytest.skip(f"no extended attributes here: {exc}")
    for version in (5, 6):
        options = options_for(source, version=version)
        create_image(options)
        bootstrap = load_bootstrap(options.bootstrap)
        found = bootstrap.stat(bootstrap.find(b"/file"))
        assert (found.uid, found.gid) == (70_000, 2**31)
        assert bootstrap.xattrs(found.ino) == {b"trusted.b": b"2", b"user.a": b""}
        device = bootstrap.stat(bootstrap.find(b"/char"))
        assert device.rdev == os.lstat(source / "char").st_rdev & 0xFFFFFFFF


def test_nothing_half_made_stays_in_a_blob_directory(source, tmp_path):
    (source / "file").write_bytes(b"x")
    (source / "unreadable").symlink_to("x")
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    options = options_for(source, blob=None, blob_dir=blobs, bootstrap=tmp_path / "no" / "boot")

    with pytest.raises(BuildError, match="cannot write"):
        create_image(options)

    assert not [path for path in blobs.iterdir() if path.name.startswith(".")]
    shutil.rmtree(blobs)


def test_a_blob_that_is_called_the_same_gets_the_new_data(source, tmp_path):
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for content in (b"first", b"second, longer"):
        (source / "file").write_bytes(content)
        options = options_for(source, blob=None, blob_dir=blobs, blob_id="name")
        create_image(options)

        image = ImageReader(tmp_path / "boot", blobs / "name")
        assert image.content(image.bootstrap.find(b"/file")) == content


def test_a_failed_build_leaves_the_files_of_the_one_before(source, tmp_path):
    (source / "file").write_bytes(b"first")
    options = options_for(source)
    create_image(options)
    before = (tmp_path / "blob").read_bytes(), (tmp_path / "boot").read_bytes()
    (source / "file").write_bytes(b"second")

    with pytest.raises(BuildError, match="cannot write"):
        create_image(replace(options, bootstrap=tmp_path / "no" / "boot"))
    with pytest.raises(BootstrapError, match="neither a RAFS"):
        create_image(replace(options, parent_bootstrap=source / "file"))

    assert ((tmp_path / "blob").read_bytes(), (tmp_path / "boot").read_bytes()) == before


def test_an_output_in_the_source_is_no_part_of_the_image(source):
    (source / "file").write_bytes(b"data")
    for options in (
        options_for(source, blob=None, blob_dir=source),
        options_for(source, blob=source / "blob"),
    ):
        create_image(options)
        names = [path for path, _ in load_bootstrap(options.bootstrap).walk()]
        assert not [name for name in names if b".nydus-image" in name or name == b"/blob"]


@pytest.mark.parametrize("blob_id", [".", "..", "a/b", "a\0b"])
def test_a_blob_id_that_names_no_file_is_refused(source, blob_id):
    with pytest.raises(BuildError, match="it must be a file name"):
        options_for(source, blob_id=blob_id)


def test_one_file_for_blob_and_bootstrap_is_refused(source, tmp_path):
    with pytest.raises(BuildError, match="must be two files"):
        options_for(source, blob=tmp_path / "source" / ".." / "boot")
