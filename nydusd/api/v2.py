"""The endpoints of /api/v2: the daemon without its mounts, and the blobs of a block service.

A FUSE daemon has no block service: what would change blobs is read, judged, and refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from nydusd.api.body import field, read_object
from nydusd.api.errors import BAD_REQUEST, ApiError
from nydusd.api.http import Request, Response
from nydusd.api.v1 import NOTHING
from nydusd.daemon.errors import NotSupported
from nydusd.daemon.info import daemon_text
from nydusd.daemon.metrics import blobs_of, images

if TYPE_CHECKING:
    from nydusd.api.context import Context

NO_BLOBS: Final = "this daemon serves file systems, no blobs"


def get_daemon(context: Context, _request: Request) -> Response:
    """State and version."""
    return Response(200, daemon_text(context.daemon, with_mounts=False).encode())


def put_blob(_context: Context, request: Request) -> Response:
    """Serve a blob; not with this daemon."""
    fields = read_object(request.body)
    for name in ("type", "id"):
        field(request.body, fields, name, str)
    if "config" not in fields and "config_v2" not in fields:
        raise ApiError(*BAD_REQUEST)
    raise NotSupported(NO_BLOBS)


def delete_blob(context: Context, request: Request) -> Response:
    """Take blobs away; not with this daemon."""
    if "domain_id" in request.query:
        raise NotSupported(NO_BLOBS)
    if "blob_id" not in request.query:
        raise ApiError(*BAD_REQUEST)
    mounts = images(context.daemon.mounts).values()
    used = {blob.info.blob_id for blob in blobs_of(mounts)}
    if request.query["blob_id"] in used:
        raise ApiError(501, "DeleteBlobFile(DaemonAbnormal(Unsupported))")
    return NOTHING  # it is not here


def get_blob(_context: Context, request: Request) -> Response:
    """Tell of a blob; nobody does."""
    if not request.body and not request.query:
        raise ApiError(*BAD_REQUEST)
    raise NotSupported(NO_BLOBS)
