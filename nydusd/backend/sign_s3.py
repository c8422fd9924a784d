"""The headers that sign one request to S3: AWS Signature Version 4, service `s3`, no body.

Pure functions: what is signed comes in, headers go out. The secret is in no result and in no
message. Source: spec storage-backends, 6; AWS, "Create a signed AWS API request".
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

ALGORITHM = "AWS4-HMAC-SHA256"
SERVICE = "s3"
EMPTY_BODY = hashlib.sha256(b"").hexdigest()
UNRESERVED = "-_.~"  # with letters and digits: what stays as it is in a signed path


class Account(NamedTuple):
    """Whose requests are signed, and for which region."""

    key_id: str
    secret: str
    region: str

    def __repr__(self) -> str:
        """The region; who it is stays hidden."""
        return f"Account(region={self.region!r})"


def s3_path(bucket: str, name: str) -> str:
    """The path of object *name* in *bucket*, path style, encoded as it is sent and signed."""
    return "/" + quote(f"{bucket}/{name}", safe="/" + UNRESERVED)


def s3_headers(
    account: Account, method: str, url: str, time: str, headers: Mapping[str, str]
) -> dict[str, str]:
    """The headers to add to *method* on *url*, which is encoded and has no query.

    *time* is UTC as `YYYYMMDDTHHMMSSZ`. Every one of *headers* is signed and must be sent as it is;
    so must `host`, which is signed with its port where that is not the scheme's own, as HTTP
    clients send it.
    """
    parts = urlsplit(url)
    signed = {name.lower(): " ".join(value.split()) for name, value in headers.items()}
    signed.update({"host": sent_host(url), "x-amz-content-sha256": EMPTY_BODY, "x-amz-date": time})
    names = ";".join(sorted(signed))
    lines = "".join(f"{name}:{signed[name]}\n" for name in sorted(signed))
    request = f"{method}\n{parts.path or '/'}\n\n{lines}\n{names}\n{EMPTY_BODY}"
    scope = f"{time[:8]}/{account.region}/{SERVICE}/aws4_request"
    digest = hashlib.sha256(request.encode()).hexdigest()
    text = f"{ALGORITHM}\n{time}\n{scope}\n{digest}"
    signature = hmac.new(_key(account, time[:8]), text.encode(), hashlib.sha256).hexdigest()
    return {
        "x-amz-content-sha256": EMPTY_BODY,
        "x-amz-date": time,
        "authorization": (
            f"{ALGORITHM} Credential={account.key_id}/{scope}, "
            f"SignedHeaders={names}, Signature={signature}"
        ),
    }


def sent_host(url: str) -> str:
    """The `host` header that a client sends for *url*: without user and the scheme's own port."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    own_port = ":443" if parts.scheme == "https" else ":80"
    return host.removesuffix(own_port)


def _key(account: Account, day: str) -> bytes:
    """The day's signing key: the secret, bound to day, region and service."""
    key = ("AWS4" + account.secret).encode()
    for word in (day, account.region, SERVICE, "aws4_request"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return key
