import hashlib
import struct

import pytest

from nydusd.base.errors import BlobCorrupt
from nydusd.cache.sidecars import chunk_digests, fetch_blob_meta, kept_blob_meta
from tests.cache.made import MadeBackend, MadeBlob


def tar_header(name: bytes, size: int) -> bytes:
    head = bytearray(512)
    head[: len(name)] = name
    head[124:136] = b"%011o\0" % size
    head[136:148] = b"0" * 11 + b"\0"
    head[156:157] = b"0"
    head[257:265] = b"ustar  \0"
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def with_digests(chunks):
    """A blob with a chunk digest table and a ToC, and its table row."""
    blob = MadeBlob(chunks)
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    entry = struct.pack(
        "<II16s32sQQQ48x",
        1,
        0,
        b"blob.digest",
        hashlib.sha256(digests).digest(),
        len(blob.data),
        len(digests),
        len(digests),
    )
    toc = entry + tar_header(b"rafs.blob.toc", len(entry))
    blob.data += digests + tar_header(b"blob.digest", len(digests)) + toc
    info = blob.info._replace(toc_size=len(toc), toc_digest=hashlib.sha256(toc).digest())
    return blob, info, digests, toc


@pytest.fixture
def made():
    return with_digests([b"one" * 50, b"two" * 60])


@pytest.mark.parametrize("known", [True, False])
def test_digests_are_found_through_the_toc_and_kept(tmp_path, made, known):
    blob, info, digests, toc = made
    if not known:
        info = info._replace(toc_size=0, toc_digest=b"")
    backend = MadeBackend(blob)
    assert chunk_digests(info, backend.reader(blob.blob_id), tmp_path) == digests
    kept = (tmp_path / f"{blob.blob_id}.blob.toc").read_bytes()
    assert kept == (toc if known else bytes(blob.data[-len(kept) :]))
    assert (tmp_path / f"{blob.blob_id}.blob.digest").read_bytes() == digests
    assert len(list(tmp_path.iterdir())) == 2
    requests = len(backend.requests)
    assert chunk_digests(info, backend.reader(blob.blob_id), tmp_path) == digests
    assert len(backend.requests) == requests


def test_kept_digests_do_without_the_backend(tmp_path, made):
    blob, info, digests, _ = made
    chunk_digests(info, MadeBackend(blob).reader(blob.blob_id), tmp_path)

    assert chunk_digests(info, None, tmp_path) == digests


@pytest.mark.parametrize("name", ["blob.toc", "blob.digest"])
@pytest.mark.parametrize("content", [b"", b"x" * 640, b"x" * 5000])
def test_broken_files_are_fetched_again(tmp_path, made, name, content):
    blob, info, digests, _ = made
    reader = MadeBackend(blob).reader(blob.blob_id)
    chunk_digests(info, reader, tmp_path)
    path = tmp_path / f"{blob.blob_id}.{name}"
    good = path.read_bytes()
    path.write_bytes(content)
    assert chunk_digests(info, reader, tmp_path) == digests
    assert path.read_bytes() == good


def test_a_toc_of_another_digest_is_refused(tmp_path, made):
    blob, info, _, _ = made
    wrong = info._replace(toc_digest=bytes(31) + b"\1")
    with pytest.raises(BlobCorrupt, match="digest"):
        chunk_digests(wrong, MadeBackend(blob).reader(blob.blob_id), tmp_path)


def test_a_digest_table_that_does_not_match_is_refused(made):
    blob, info, digests, _ = made
    at = bytes(blob.data).index(digests)
    blob.data[at] ^= 1
    with pytest.raises(BlobCorrupt, match="digest"):
        chunk_digests(info, MadeBackend(blob).reader(blob.blob_id), None)


def test_a_blob_without_a_digest_table_says_so():
    blob = MadeBlob([b"x" * 5000])
    with pytest.raises(BlobCorrupt, match="lists no chunk digests"):
        chunk_digests(blob.info, MadeBackend(blob).reader(blob.blob_id), None)


def test_the_ci_array_is_kept_whole_and_its_header_last(tmp_path):
    blob = MadeBlob([b"x" * 5000] * 300)
    path = tmp_path / "meta"
    meta = fetch_blob_meta(blob.info, MadeBackend(blob).reader(blob.blob_id), path)
    assert meta.place(299).compressed_offset == blob.places[299][0]
    assert path.stat().st_size == 4096 * 3
    kept = kept_blob_meta(blob.info, path)
    assert kept is not None
    assert kept_blob_meta(blob.info._replace(ci_offset=1), path) is None
    assert kept_blob_meta(blob.info, tmp_path / "none") is None


def test_the_ci_array_is_of_use_before_it_is_on_the_disk(tmp_path):
    blob = MadeBlob([b"x" * 5000] * 300)
    path = tmp_path / "meta"
    later = []
    reader = MadeBackend(blob).reader(blob.blob_id)
    meta = fetch_blob_meta(blob.info, reader, path, later=later)
    assert meta.place(299).compressed_offset == blob.places[299][0]
    assert kept_blob_meta(blob.info, path) is None  # for all who come now it is not complete
    (finish,) = later
    finish()
    assert kept_blob_meta(blob.info, path) is not None


def test_without_a_directory_the_ci_array_stays_in_memory():
    blob = MadeBlob([b"x" * 5000])
    meta = fetch_blob_meta(blob.info, MadeBackend(blob).reader(blob.blob_id), None)
    assert meta.count == 1


def test_an_absurd_size_is_refused_before_it_is_allocated():
    blob = MadeBlob([b"x" * 5000])
    hostile = blob.info._replace(ci_uncompressed_size=1 << 50)
    with pytest.raises(BlobCorrupt, match="become"):
        fetch_blob_meta(hostile, MadeBackend(blob).reader(blob.blob_id), None)


def test_a_table_of_chunks_that_claims_to_inflate_without_end_takes_no_memory():
    blob = MadeBlob([b"one"])
    info = blob.info._replace(ci_compressed_size=1000, ci_uncompressed_size=1 << 29)

    with pytest.raises(BlobCorrupt, match="1000 bytes that become 536870912"):
        fetch_blob_meta(info, MadeBackend(blob).reader(blob.blob_id), None)
