"""The blobs of a singleton daemon: which are there after images came and went."""

import shutil

import pytest

from nydusd.base.errors import ConfigError
from nydusd.config.blob_entry import make_entry
from nydusd.daemon.blobs import AlreadyThere, BlobRefused, BlobTable, DataBlob, MetaBlob, add_all
from nydusd.rafs.load import load_bootstrap
from tests.system.images import GOLDEN, Image

V6, V5 = Image(GOLDEN / "v6-zstd"), Image(GOLDEN / "v5-lz4")


@pytest.fixture
def entry(tmp_path):
    """A function that makes an entry of an image in a domain."""

    def make(id="boot", domain="d", image=V6, kind="bootstrap", cache="fscache", path=None):
        config = {
            "backend_type": "localfs",
            "backend_config": {"dir": str(image.blobs)},
            "cache_type": cache,
            "cache_config": {"work_dir": str(tmp_path)},
            "metadata_path": str(path or image.bootstrap),
        }
        return make_entry({"type": kind, "id": id, "domain_id": domain, "config": config})

    return make


def data_id(image=V6):
    return load_bootstrap(image.bootstrap).blobs[0].blob_id


def test_an_image_brings_its_blobs(entry):
    table = BlobTable()
    table.add(entry())

    meta = table.find("d", "boot")
    assert isinstance(meta, MetaBlob)
    assert meta.path == V6.bootstrap.resolve()
    assert isinstance(table.find("d", data_id()), DataBlob)
    assert table.find("other", data_id()) is None
    assert table.find("d", "nobody") is None


def test_a_bootstrap_stands_once_in_a_domain(entry):
    table = BlobTable()
    table.add(entry())

    with pytest.raises(AlreadyThere, match="bootstrap blob already exists"):
        table.add(entry())
    table.add(entry(domain="other"))
    assert [each.domain_id for each in table.entries()] == ["d", "other"]


def test_a_data_blob_stays_until_its_last_image_goes(entry):
    table = BlobTable()
    table.add(entry("one"))
    table.add(entry("two"))

    table.remove("d", "one")
    assert table.find("d", data_id()) is not None
    table.remove("d", "two")
    assert table.find("d", data_id()) is None


def test_a_refused_image_leaves_the_counts_as_they_were(entry):
    table = BlobTable()
    table.add(entry())
    with pytest.raises(AlreadyThere):
        table.add(entry())

    table.remove("d", "boot")

    assert table.find("d", data_id()) is None


def test_a_domain_goes_as_a_whole(entry):
    table = BlobTable()
    for domain in ("d", "d", "e"):
        table.add(entry(id=str(len(table.entries())), domain=domain))

    table.remove("d", "")
    table.remove("nobody", "")

    assert [each.domain_id for each in table.entries()] == ["e"]
    assert table.find("d", data_id()) is None
    assert table.find("e", data_id()) is not None


def test_a_data_blob_taken_away_by_hand_does_not_hurt_its_image(entry):
    table = BlobTable()
    table.add(entry())
    table.remove("d", data_id())

    table.remove("d", "boot")
    table.add(entry())
    assert table.find("d", data_id()) is not None


@pytest.mark.parametrize(("domain", "id"), [("d", "nobody"), ("", ""), ("", "boot")])
def test_what_is_not_here_cannot_be_removed(entry, domain, id):
    table = BlobTable()
    table.add(entry())

    with pytest.raises(BlobRefused, match=r"^No such file.*cache entry not found"):
        table.remove(domain, id)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kind": "datablob"}, "datablob"),
        ({"kind": "what"}, "what"),
        ({"id": "a/b"}, "not a name"),
        ({"domain": "a/b"}, "not a name"),
        ({"cache": "dummycache"}, "keeps nothing"),
        ({"path": "/nowhere/at/all"}, "No such file"),
        ({"path": "/"}, "not a file"),
        ({"image": V5}, "v5"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(entry, changes, words):
    table = BlobTable()

    with pytest.raises(BlobRefused, match=rf"Invalid argument \(os error 22\).*{words}"):
        table.add(entry(**changes))
    assert table.entries() == []


def test_a_missing_cache_directory_is_refused(entry, tmp_path):
    made = entry()
    shutil.rmtree(tmp_path)

    with pytest.raises(BlobRefused, match=r"Input/output error \(os error 5\).*work_dir"):
        BlobTable().add(made)


def test_at_the_start_the_first_bad_entry_ends_it(entry):
    with pytest.raises(ConfigError, match="Failed to add blob list: 'b'"):
        add_all(BlobTable(), (entry("a"), entry("b", image=V5)))
