from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from alibabacloud_oss_v2.credentials import Credentials
from alibabacloud_oss_v2.signer import SignerV1
from alibabacloud_oss_v2.types import HttpRequest, SigningContext
from hypothesis import given
from hypothesis import strategies as st

from nydusd.backend.sign_oss import oss_authorization

WORDS = st.text("abcXYZ019-_.", min_size=1, max_size=12)
NAMES = st.text("abcXYZ019-_./ +%é", min_size=1, max_size=40)
TIMES = st.integers(0, 4 * 10**9).map(
    lambda seconds: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def test_a_request_of_the_reference_gets_the_signature_it_had():
    # Captured from nydusd 2.2.0 (spec storage-backends, 5).
    resource = "/bkt/pre/cb47b18f5a0d7ed7b17c220f1cce170136bc0d32df0d7f2f3b3767dd756f514b"

    signed = oss_authorization("ID", "SECRET", "GET", resource, "Tue, 24 Nov 2026 06:42:53 GMT")

    assert signed == "OSS ID:wyCvU1ueqD5kAagvm0QmG5Lseuw="


@given(
    method=st.sampled_from(["GET", "HEAD"]),
    key_id=WORDS,
    secret=WORDS,
    bucket=WORDS,
    name=NAMES,
    time=TIMES,
    own=st.dictionaries(WORDS.map(lambda word: f"X-Oss-{word}"), WORDS, max_size=3),
)
def test_the_signature_is_the_one_of_the_service_s_own_library(
    method, key_id, secret, bucket, name, time, own
):
    own = {header.lower(): value for header, value in own.items()}
    request = HttpRequest(method, f"https://{bucket}.example/object", headers=dict(own))
    context = SigningContext(
        product="oss",
        region="r",
        bucket=bucket,
        key=name,
        request=request,
        credentials=Credentials(key_id, secret),
        signing_time=time,
    )
    SignerV1().sign(context)

    ours = oss_authorization(
        key_id, secret, method, f"/{bucket}/{name}", format_datetime(time, usegmt=True), own
    )

    assert ours == request.headers["Authorization"]


def test_of_the_headers_only_the_service_s_own_are_signed():
    plain = oss_authorization("ID", "SECRET", "GET", "/b/o", "date")

    assert oss_authorization("ID", "SECRET", "GET", "/b/o", "date", {"Range": "x"}) == plain
    assert oss_authorization("ID", "SECRET", "GET", "/b/o", "date", {"X-Oss-A": "x"}) != plain
