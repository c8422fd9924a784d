"""The endpoints of /api/v1: from a request to a call of the daemon, and back to a body."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from nydusd.api.body import field, optional_field, read_object, strings
from nydusd.api.errors import ApiError, missing_query
from nydusd.api.http import Request, Response
from nydusd.base import log
from nydusd.daemon.errors import NotSupported
from nydusd.daemon.info import daemon_text, superblock_info
from nydusd.daemon.mount_request import MountRequest, make_request
from nydusd.daemon.runtime_settings import UnknownSetting

if TYPE_CHECKING:
    from nydusd.api.context import Context

NOTHING: Final = Response(204)


def json_response(value: object) -> Response:
    """200 with *value* as its body."""
    return Response(200, json.dumps(value, separators=(",", ":")).encode())


def needed(request: Request, name: str) -> str:
    """The query argument *name*; `ApiError` when there is none."""
    value = request.query.get(name)
    if value is None:
        raise missing_query(name)
    return value


# --- the daemon


def get_daemon(context: Context, _request: Request) -> Response:
    """State, version and mounts."""
    return Response(200, daemon_text(context.daemon, with_mounts=True).encode())


def get_events(context: Context, _request: Request) -> Response:
    """The last errors of the backends."""
    return json_response(context.daemon.events.snapshot())


def configure_daemon(_context: Context, request: Request) -> Response:
    """Change the log level."""
    fields = read_object(request.body)
    level = field(request.body, fields, "log_level", str)
    try:
        log.set_level(level.lower())
    except ValueError as exc:
        raise ApiError(500, "Configure(ResponsePayloadType)") from exc
    return NOTHING


def get_backend(context: Context, request: Request) -> Response:
    """The superblock of one mount."""
    return json_response(superblock_info(context.daemon, needed(request, "mountpoint")))


def get_config(context: Context, request: Request) -> Response:
    """What can be changed while it is mounted, and to what it is set; no secrets."""
    return json_response(context.daemon.runtime_settings.shown(request.query.get("id")))


def put_config(context: Context, request: Request) -> Response:
    """Change credentials and addresses of a mount's backend."""
    fields = read_object(request.body)
    settings = {name: field(request.body, fields, name, str) for name in fields}
    try:
        context.daemon.runtime_settings.change(request.query.get("id", ""), settings)
    except UnknownSetting as exc:
        raise ApiError(500, "Configure(ResponsePayloadType)") from exc
    return NOTHING


def start(context: Context, _request: Request) -> Response:
    """Serve the session that was taken over."""
    context.daemon.start_service()
    return NOTHING


def exit_daemon(context: Context, _request: Request) -> Response:
    """End, and leave the kernel mount to a successor."""
    context.daemon.leave()
    return NOTHING


def send_fd(context: Context, _request: Request) -> Response:
    """Give state and session to the supervisor."""
    context.daemon.send()
    return NOTHING


def take_over(context: Context, _request: Request) -> Response:
    """Take state and session from the supervisor."""
    context.daemon.take_over()
    return NOTHING


# --- mounts


def mount_request(context: Context, request: Request) -> MountRequest:
    """The mount that a body describes; `NotSupported` when the daemon mounts nothing."""
    mountpoint = needed(request, "mountpoint")
    body = request.body
    fields: dict[str, Any] = read_object(body)
    kind = optional_field(body, fields, "fs_type", str, "")
    source = field(body, fields, "source", str)
    config_text = field(body, fields, "config", str)
    prefetch_files = strings(body, optional_field(body, fields, "prefetch_files", list, []))
    if context.daemon.blobs is not None:
        raise NotSupported("a singleton daemon mounts no file systems")
    return make_request(kind, source, config_text, mountpoint, prefetch_files)


def mount(context: Context, request: Request) -> Response:
    """Serve an image; when the answer comes its files can be read."""
    context.daemon.mount(mount_request(context, request))
    return NOTHING


def remount(context: Context, request: Request) -> Response:
    """Serve another bootstrap or configuration in the place of what is mounted there."""
    context.daemon.remount(mount_request(context, request))
    return NOTHING


def umount(context: Context, request: Request) -> Response:
    """Take a mount away; who is inside keeps what it needs."""
    context.daemon.umount(needed(request, "mountpoint"))
    return NOTHING
