"""The endpoints of /api/v2: the daemon without its mounts, and the blobs of a singleton.

A FUSE daemon has no list of blobs: what would change one is read, judged, and refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from nydusd.api.body import field, read_object
from nydusd.api.errors import BAD_REQUEST, ApiError
from nydusd.api.http import Request, Response
from nydusd.api.v1 import NOTHING
from nydusd.base.errors import ConfigError
from nydusd.daemon.blobs import make_entry
from nydusd.daemon.errors import NotSupported
from nydusd.daemon.info import daemon_text
from nydusd.daemon.metrics import blobs_of, images

if TYPE_CHECKING:
    from nydusd.api.context import Context

NO_BLOBS: Final = "this daemon serves file systems, no blobs"


def get_daemon(context: Context, _request: Request) -> Response:
    """State and version."""
    return Response(200, daemon_text(context.daemon, with_mounts=False).encode())


def put_blob(context: Context, request: Request) -> Response:
    """Know an image, so that the kernel can ask for its blobs."""
    fields = entry_fields(request.body)
    if context.daemon.blobs is None:
        raise NotSupported(NO_BLOBS)
    try:
        entry = make_entry(fields, request.body.decode())
    except ConfigError as exc:
        # Clients are told no more; the log has the reason.
        raise ApiError(*BAD_REQUEST, reason=str(exc)) from exc
    context.daemon.blobs.add(entry)
    return NOTHING


def entry_fields(body: bytes) -> dict[str, Any]:
    """The blob entry in *body*, with all fields that one must have; `ApiError`."""
    fields = read_object(body)
    for name in ("type", "id"):
        field(body, fields, name, str)
    if "domain_id" in fields:
        field(body, fields, "domain_id", str)
    found = [name for name in ("config", "config_v2") if fields.get(name) is not None]
    if not found:
        raise ApiError(*BAD_REQUEST, reason="neither config nor config_v2")
    for name in found:
        config = field(body, fields, name, dict)
        if name == "config_v2":
            field(body, config, "version", int)
        else:
            field(body, config, "backend_type", str)
            field(body, config, "backend_config", dict)
    return fields


def delete_blob(context: Context, request: Request) -> Response:
    """Forget an image or a whole domain; without a domain, drop what is kept of a blob."""
    domain_id, blob_id = request.query.get("domain_id"), request.query.get("blob_id")
    if domain_id is None and blob_id is None:
        raise ApiError(*BAD_REQUEST)
    if domain_id is not None:
        if context.daemon.blobs is None:
            raise NotSupported(NO_BLOBS)
        context.daemon.blobs.remove(domain_id, blob_id or "")
    else:
        drop_blob(context, blob_id or "")
    return NOTHING


def drop_blob(context: Context, blob_id: str) -> None:
    """Drop what is kept of a blob; `ApiError` when somebody uses it, or it is kept elsewhere."""
    daemon = context.daemon
    refused = ApiError(501, "DeleteBlobFile(DaemonAbnormal(Unsupported))")
    if daemon.blobs is not None:
        try:
            daemon.cull(blob_id)
        except NotSupported as exc:
            raise refused from exc
    elif blob_id in {blob.info.blob_id for blob in blobs_of(images(daemon.mounts).values())}:
        raise refused


def get_blob(_context: Context, request: Request) -> Response:
    """Tell of a blob; nobody does."""
    if not request.body and not request.query:
        raise ApiError(*BAD_REQUEST)
    raise NotSupported("blobs are not told of")
