"""Blobs in an OSS bucket.

Source: spec storage-backends, 5. The bucket stands in the host name; a request is signed for each
attempt, as its date is part of it. With neither key the bucket is taken for a public one and
requests are not signed (the reference signs with nothing, which the service refuses).
"""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

from nydusd.backend.http import HttpBackend
from nydusd.backend.sign_oss import oss_authorization

if TYPE_CHECKING:
    from nydusd.backend.request import Request
    from nydusd.config.model import ObjectStorage


class OssBackend(HttpBackend):
    """The blobs of one bucket, by *config*."""

    def __init__(self, config: ObjectStorage) -> None:
        super().__init__(config.connection)
        self._config = config

    def url(self, blob_id: str) -> str:
        """The object, with the bucket in the host's name."""
        config = self._config
        name = quote(config.object_prefix + blob_id, safe="/-_.~")
        return f"{config.scheme}://{config.bucket_name}.{config.endpoint}/{name}"

    def prepare(self, request: Request) -> Request:
        """*request*, signed for this moment."""
        config = self._config
        if not config.access_key_id and not config.access_key_secret:
            return request
        date = formatdate(time.time(), usegmt=True)
        authorization = oss_authorization(
            config.access_key_id,
            config.access_key_secret,
            request.method,
            f"/{config.bucket_name}{unquote(urlsplit(request.url).path)}",
            date,
            dict(request.headers),
        )
        signed = (*request.headers, ("date", date), ("authorization", authorization))
        return request._replace(headers=signed)
