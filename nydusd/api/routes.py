"""Every endpoint in one table: method and path, what the request must have, who answers.

Handlers of `v1` and `v2` take the context and a request and give an answer. Those that change
something run on the control thread, long ones in a thread of their own, all others at once in the
event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from nydusd.api import metrics, prometheus, v1, v2
from nydusd.api.errors import BAD_REQUEST, NO_ROUTE, as_api_error, error_response
from nydusd.api.http import Request, Response
from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from nydusd.api.context import Context

Handler = Callable[["Context", Request], Response]


METRICS_PATH: Final = "/metrics"


class Route(NamedTuple):
    """One endpoint. *outer* names the operation in its errors; *body*: None = either."""

    handler: Handler
    outer: str
    body: bool | None = False
    on_control: bool = False
    in_thread: bool = False  # takes long with many mounts or files


ROUTES: Final[dict[tuple[str, str], Route]] = {
    ("GET", "/api/v1/daemon"): Route(v1.get_daemon, "DaemonInfo"),
    ("PUT", "/api/v1/daemon"): Route(v1.configure_daemon, "Configure", body=True),
    ("PUT", "/api/v1/daemon/start"): Route(v1.start, "Configure", on_control=True),
    ("PUT", "/api/v1/daemon/exit"): Route(v1.exit_daemon, "Configure"),
    ("PUT", "/api/v1/daemon/fuse/sendfd"): Route(v1.send_fd, "Upgrade", on_control=True),
    ("PUT", "/api/v1/daemon/fuse/takeover"): Route(v1.take_over, "Upgrade", on_control=True),
    ("POST", "/api/v1/mount"): Route(v1.mount, "Mount", body=True, on_control=True),
    ("PUT", "/api/v1/mount"): Route(v1.remount, "Mount", body=True, on_control=True),
    ("DELETE", "/api/v1/mount"): Route(v1.umount, "Mount", on_control=True),
    ("GET", "/api/v1/daemon/events"): Route(v1.get_events, "Events"),
    ("GET", "/api/v1/daemon/backend"): Route(v1.get_backend, "FsBackendInfo"),
    ("GET", "/api/v1/config"): Route(v1.get_config, "GetConfig"),
    ("PUT", "/api/v1/config"): Route(v1.put_config, "Configure", body=True, on_control=True),
    ("PUT", "/api/v2/blobs"): Route(v2.put_blob, "CreateBlobObject", body=True, on_control=True),
    ("DELETE", "/api/v2/blobs"): Route(v2.delete_blob, "DeleteBlobObject", on_control=True),
    ("GET", "/api/v2/blobs"): Route(v2.get_blob, "GetBlobObject", body=None),
    ("GET", "/api/v1/metrics"): Route(metrics.get_global, "GlobalMetrics"),
    ("GET", "/api/v1/metrics/files"): Route(metrics.get_files, "FsFilesMetrics", in_thread=True),
    ("GET", "/api/v1/metrics/pattern"): Route(metrics.get_pattern, "Pattern", in_thread=True),
    ("GET", "/api/v1/metrics/backend"): Route(metrics.get_backend, "BackendMetrics"),
    ("GET", "/api/v1/metrics/blobcache"): Route(metrics.get_blobcache, "BlobcacheMetrics"),
    ("GET", "/api/v1/metrics/inflight"): Route(metrics.get_inflight, "InflightMetrics"),
    ("GET", "/api/v1/metrics/prefetch"): Route(
        metrics.get_prefetch, "PrefetchMetrics", in_thread=True
    ),
    ("GET", "/api/v1/metrics/blobs"): Route(metrics.get_blobs, "BlobMetrics", in_thread=True),
    ("GET", METRICS_PATH): Route(prometheus.get_metrics, "Metrics", in_thread=True),
    ("GET", "/api/v2/daemon"): Route(v2.get_daemon, "DaemonInfo"),
    ("PUT", "/api/v2/daemon"): Route(v1.configure_daemon, "Configure", body=True),
}
PATHS: Final = frozenset(path for _, path in ROUTES)


def find_route(request: Request) -> Route | Response:
    """The endpoint that *request* is for, or the error that says why there is none."""
    route = ROUTES.get((request.method, request.path))
    if route is None:
        return error_response(*(BAD_REQUEST if request.path in PATHS else NO_ROUTE))
    if route.body is not None and route.body != bool(request.body):
        return error_response(*BAD_REQUEST)
    return route


def failed(route: Route, exc: BaseException) -> Response:
    """The answer to a request for *route* that ended with *exc*."""
    error = as_api_error(exc, route.outer)
    return error_response(error.status, error.message)
