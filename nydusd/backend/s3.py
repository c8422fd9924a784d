"""Blobs in an S3 bucket, path style.

Source: spec storage-backends, 6. A request is signed for each attempt, as its time is part of it.
With neither key the bucket is taken for a public one and requests are not signed (the reference
signs with nothing, which servers refuse). The host that was signed is sent to mirrors, too: one
that passes requests on and one that has the objects itself can both check it.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from nydusd.backend.http import HttpBackend
from nydusd.backend.sign_s3 import Account, s3_headers, s3_path, sent_host

if TYPE_CHECKING:
    from nydusd.backend.request import Request
    from nydusd.config.model import ObjectStorage

DEFAULT_ENDPOINT = "s3.amazonaws.com"


class S3Backend(HttpBackend):
    """The blobs of one bucket, by *config*."""

    def __init__(self, config: ObjectStorage) -> None:
        super().__init__(config.connection)
        self._config = config
        self._account = Account(config.access_key_id, config.access_key_secret, config.region)

    def url(self, blob_id: str) -> str:
        """The object, with the bucket first in the path."""
        config = self._config
        path = s3_path(config.bucket_name, config.object_prefix + blob_id)
        return f"{config.scheme}://{config.endpoint or DEFAULT_ENDPOINT}{path}"

    def prepare(self, request: Request) -> Request:
        """*request*, signed for this moment."""
        if not self._account.key_id and not self._account.secret:
            return request
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        headers = s3_headers(self._account, request.method, request.url, now, {})
        headers["host"] = sent_host(request.url)
        return request._replace(headers=(*request.headers, *headers.items()))
