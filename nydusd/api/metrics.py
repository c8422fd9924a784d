"""The endpoints below /api/v1/metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.api.v1 import NOTHING, json_response
from nydusd.daemon import metrics
from nydusd.daemon.errors import NotSupported

if TYPE_CHECKING:
    from nydusd.api.context import Context
    from nydusd.api.http import Request, Response


def get_global(context: Context, request: Request) -> Response:
    """Operations and reads of one mount."""
    path, mount = metrics.find_mount(context.daemon.mounts, request.query.get("id"))
    return json_response(metrics.fs_metrics(path, mount))


def get_files(context: Context, request: Request) -> Response:
    """Counters of each file, or the files that were read lately."""
    _, mount = metrics.find_mount(context.daemon.mounts, request.query.get("id"))
    if request.query.get("latest") == "true":
        return json_response(metrics.latest_read_files(mount))
    return json_response(metrics.file_metrics(mount))


def get_pattern(context: Context, request: Request) -> Response:
    """When each file was first read, and how often since."""
    _, mount = metrics.find_mount(context.daemon.mounts, request.query.get("id"))
    return json_response(metrics.access_pattern(mount))


def get_backend(context: Context, request: Request) -> Response:
    """What was asked of a mount's backend."""
    _, mount = metrics.find_mount(context.daemon.mounts, request.query.get("id"))
    return json_response(metrics.backend_metrics(mount))


def get_blobcache(context: Context, request: Request) -> Response:
    """What the cache of a configuration has done."""
    mounts = metrics.cache_mounts(context.daemon.mounts, request.query.get("id"))
    return json_response(metrics.cache_metrics(mounts))


def get_inflight(context: Context, _request: Request) -> Response:
    """The requests of the kernel that are not answered yet."""
    session = context.daemon.session
    if session is None:
        raise NotSupported("this daemon has no session with the kernel")
    found = [
        {"inode": inode, "opcode": opcode, "unique": unique, "timestamp_secs": since}
        for inode, opcode, unique, since in session.in_flight()
    ]
    return json_response(found) if found else NOTHING


def get_prefetch(context: Context, request: Request) -> Response:
    """How far the prefetch of each mount, or of one, has come: null where there is none."""
    mounts = context.daemon.mounts
    chosen = metrics.images(mounts)
    if "id" in request.query:
        chosen = dict([metrics.find_mount(mounts, request.query["id"])])
    return json_response({path: metrics.prefetch_state(each) for path, each in chosen.items()})


def get_blobs(context: Context, request: Request) -> Response:
    """The blobs of one mount, or all that are open: what is on local disk, what was asked."""
    # Not by way of the pool, whose lock is held while a backend is asked.
    mounts = list(metrics.images(context.daemon.mounts).values())
    if "id" in request.query:
        _, mount = metrics.find_mount(context.daemon.mounts, request.query["id"])
        mounts = [mount]
    return json_response([metrics.blob_state(blob) for blob in metrics.blobs_of(mounts)])
