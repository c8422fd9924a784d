"""The `authorization` header of one request to OSS: version 1 of its header signature.

Pure functions: what is signed comes in, the header's value goes out. The secret is in no result
and in no message. Source: spec storage-backends, 5; OSS API reference, "Include signatures in the
authorization header".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

OWN_PREFIX = "x-oss-"


def oss_authorization(
    key_id: str,
    secret: str,
    method: str,
    resource: str,
    date: str,
    headers: Mapping[str, str] | None = None,
) -> str:
    """The value of `authorization` for *method* on *resource* at *date*.

    *resource* is `/BUCKET/OBJECT` as it is named, not encoded for a URL; *date* is the request's
    `date` header. Of *headers* those that begin with `x-oss-` are signed as well. A request has
    neither content-md5 nor content-type here: all that is signed is a GET or a HEAD.
    """
    text = f"{method}\n\n\n{date}\n{_own_headers(headers or {})}{resource}"
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha1).digest()
    return f"OSS {key_id}:{base64.b64encode(digest).decode()}"


def _own_headers(headers: Mapping[str, str]) -> str:
    """OSS's own headers as they are signed: `name:value` lines, lower case, sorted by name."""
    own = sorted(
        (name.lower(), value.strip())
        for name, value in headers.items()
        if name.lower().startswith(OWN_PREFIX)
    )
    return "".join(f"{name}:{value}\n" for name, value in own)
