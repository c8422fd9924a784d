"""An OSS of one bucket: checks the signature of every request as the service describes it."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import unquote

from tests.servers.loopback import Exchange, LoopbackServer


class OssServer(LoopbackServer):
    """Serves the objects of *bucket*; paths are `/NAME`, the bucket stands in the host name."""

    def __init__(self, bucket: str, key_id: str, secret: str) -> None:
        super().__init__()
        self.bucket = bucket
        self.key_id = key_id
        self.secret = secret

    def respond(self, exchange: Exchange) -> None:
        """The object to who signs for it, 403 with the service's code to anybody else."""
        request = exchange.request
        lines = [request.method, "", "", request.headers.get("date", "")]
        resource = f"/{self.bucket}{unquote(request.path)}"
        digest = hmac.new(self.secret.encode(), "\n".join([*lines, resource]).encode(), "sha1")
        expected = f"OSS {self.key_id}:{base64.b64encode(digest.digest()).decode()}"
        given = request.headers.get("authorization", "")
        if not request.headers.get("host", "").startswith(f"{self.bucket}."):
            exchange.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
        elif not hmac.compare_digest(given, expected):
            exchange.answer(403, b"<Error><Code>SignatureDoesNotMatch</Code></Error>")
        else:
            exchange.serve()
