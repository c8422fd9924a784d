"""The endpoints of /api/v2: the daemon without its mounts, and the blobs of a block service."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.api.v1 import json_response
from nydusd.daemon.info import daemon_info

if TYPE_CHECKING:
    from nydusd.api.context import Context
    from nydusd.api.http import Request, Response


def get_daemon(context: Context, _request: Request) -> Response:
    """State and version."""
    return json_response(daemon_info(context.daemon, with_mounts=False))
