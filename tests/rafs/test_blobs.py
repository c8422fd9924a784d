import pytest

from nydusd.base.errors import UnsupportedError
from nydusd.rafs.blobs import (
    BlobFeature,
    Cipher,
    Compressor,
    data_size_v5,
    data_size_v6,
    name_blobs,
    refuse_unsupported,
)
from tests.rafs.made import BLOB

ALIGNED, CAP = BlobFeature.ALIGNED, BlobFeature.CAP_TAR_TOC
INLINED, SEPARATE = BlobFeature.INLINED_FS_META, BlobFeature.SEPARATE


@pytest.mark.parametrize(
    ("features", "out_of_blob", "data", "meta"),
    [
        (CAP, False, "stored", "meta"),
        (CAP, True, "stored", "meta"),
        (BlobFeature(0), False, "stored", "meta"),
        (BlobFeature(0), True, "file", "file"),
        (CAP | INLINED, False, "file", "file"),
        (CAP | INLINED | SEPARATE, True, "stored", "file"),
        (CAP | SEPARATE, True, "stored", "meta"),
    ],
)
def test_a_blob_that_holds_its_bootstrap_is_named_by_its_file(
    features: BlobFeature, out_of_blob: bool, data: str, meta: str
) -> None:
    (named,) = name_blobs([BLOB._replace(features=features)], "file", out_of_blob=out_of_blob)

    assert (named.blob_id, named.meta_blob_id) == (data, meta)


@pytest.mark.parametrize(
    ("features", "size"),
    [
        (SEPARATE | CAP, 5000),
        (CAP, 4000),
        (CAP | BlobFeature.HAS_TAR_HEADER, 4000 - 512),
        (BlobFeature(0), 5000),
    ],
)
def test_chunk_data_of_v6_ends_before_what_follows_it(features: BlobFeature, size: int) -> None:
    assert data_size_v6(features, 5000, 4000, 48) == size


def test_chunk_data_without_a_table_of_chunks_fills_the_blob() -> None:
    assert data_size_v6(CAP | BlobFeature.TARFS, 5000, 0, 0) == 5000
    assert data_size_v6(CAP | BlobFeature.HAS_TAR_HEADER, 5000, 100, 48) == 0


def test_chunk_data_of_v5_ends_before_a_tar_header() -> None:
    assert data_size_v5(CAP, 5000) == 5000
    assert data_size_v5(CAP | BlobFeature.HAS_TAR_HEADER, 5000) == 4488
    assert data_size_v5(BlobFeature.HAS_TAR_HEADER, 5000) == 5000


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"features": ALIGNED | CAP | BlobFeature.ENCRYPTED}, "names no cipher"),
        ({"features": CAP | BlobFeature.EXTERNAL}, "external"),
        ({"cipher": Cipher.AES_256_XTS}, "AES_256_XTS"),
        ({"cipher": Cipher.AES_256_GCM}, "AES_256_GCM"),
        ({"ci_compressed_size": 0}, "no table of its chunks"),
    ],
)
def test_a_blob_that_cannot_be_served_is_refused_by_name(
    change: dict[str, object], word: str
) -> None:
    blob = BLOB._replace(**change)  # type: ignore[arg-type]

    with pytest.raises(UnsupportedError, match=f"blob stored: .*{word}"):
        refuse_unsupported([BLOB, blob])


def test_ordinary_blobs_are_not_refused() -> None:
    v5 = BLOB._replace(version=5, ci_compressed_size=0)
    plain_tar = BLOB._replace(
        compressor=Compressor.GZIP, features=BLOB.features | BlobFeature.CHUNK_INFO_V2
    )
    refuse_unsupported([BLOB, v5, plain_tar, BLOB._replace(chunk_count=0, ci_compressed_size=0)])


def test_keys_are_not_shown() -> None:
    assert "secret" not in repr(BLOB._replace(cipher_key=b"secret", cipher_iv=b"secret"))
