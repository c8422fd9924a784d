"""From an exception to a status and a message, in the words that clients of the reference know.

The one place that knows those words (spec: http-api, errors): a message is the debug form of a
nested error, `Outer(DaemonAbnormal(Inner))`; clients print it, and some look for parts of it.
"""

import errno
import json
import os
from typing import Final

from nydusd.api.http import Response
from nydusd.base.errors import BootstrapError, NydusError
from nydusd.base.os_error import debug_os_error
from nydusd.daemon.errors import (
    AlreadyMounted,
    ConfigUnusable,
    HostDirectoryUnusable,
    NoCounter,
    NotMounted,
    NotReady,
    NotSupported,
    UnknownMountKind,
    UpgradeFailed,
    WrongMountKind,
)
from nydusd.daemon.state import UnexpectedEvent

CODE: Final = "UNDEFINED"
BLOB_WORDS: Final = ("CreateBlob", "DeleteBlob")
NO_SUCH_MOUNT: Final = "object or filesystem doesn't exist"


class ApiError(Exception):
    """A request that is answered with *status* and *message*; *reason* is for the log."""

    def __init__(self, status: int, message: str, *, reason: str = "") -> None:
        super().__init__(f"{message}: {reason}" if reason else message)
        self.status = status
        self.message = message


NO_ROUTE: Final = (404, "NoRoute")
BAD_REQUEST: Final = (400, "BadRequest")


def error_response(status: int, message: str) -> Response:
    """The answer that says *message*."""
    body = json.dumps({"code": CODE, "message": message}, separators=(",", ":"))
    return Response(status, body.encode())


def debug_text(text: str) -> str:
    """*text* in quotes, as the debug form of a string has it."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in escaped) + '"'


def missing_query(name: str) -> ApiError:
    """A query argument that is needed and not there."""
    text = f"'{name}' should be specified in query string"
    return ApiError(400, f"QueryString({debug_text(text)})")


def no_counter(outer: str) -> ApiError:
    """There are no counters under that name."""
    return ApiError(404, f"{outer}(Metrics(Stats(NoCounter)))")


def as_api_error(exc: BaseException, outer: str) -> ApiError:
    """*exc*, raised by the daemon for an operation of the kind *outer*."""
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, UnexpectedEvent):
        return ApiError(400, f'{outer}(DaemonAbnormal(UnexpectedEvent("{exc.event.value}")))')
    if isinstance(exc, NotReady):
        return ApiError(503, f"{outer}(DaemonAbnormal(NotReady))")
    if isinstance(exc, NotSupported):
        return ApiError(501, f"{outer}(DaemonAbnormal(Unsupported))")
    if isinstance(exc, NoCounter):
        return no_counter(outer)
    if isinstance(exc, UpgradeFailed):
        return ApiError(500, f"{outer}(DaemonAbnormal(UpgradeManager({debug_text(str(exc))})))")
    # What is wrong with a blob is told without the frame of a mount.
    text = system_text(exc) if outer.startswith(BLOB_WORDS) else inner_text(exc)
    if outer == "FsBackendInfo":
        return ApiError(500, f"{outer}(Metrics(Daemon(Other({debug_text(text)}))))")
    if outer == "Mount":
        return ApiError(500, f"Mount(MountFilesystem(Other({debug_text(text)})))")
    return ApiError(500, f"{outer}(DaemonAbnormal(Other({debug_text(text)})))")


def inner_text(exc: BaseException) -> str:
    """What went wrong, without the frame around it."""
    if isinstance(exc, AlreadyMounted):
        return "object or filesystem already exists"
    if isinstance(exc, NotMounted):
        return NO_SUCH_MOUNT
    if isinstance(exc, WrongMountKind):
        return "filesystem type mismatch, expect RAFS"
    if isinstance(exc, UnknownMountKind):
        kinds = "only 'rafs' and 'passthrough_fs' are supported"
        return f"invalid argument `{kinds}, but {exc.kind} was specified`"
    if isinstance(exc, ConfigUnusable):
        failed = "Failed to load config: failed to parse configuration information`"
        return f"RAFS failed to handle request, {failed}: {exc}"
    if isinstance(exc, HostDirectoryUnusable):
        if exc.cause.errno == errno.ENOTDIR:
            return f"VFS failed to handle request, Mount({debug_os_error(exc.cause)})"
        return f"passthroughfs failed to handle request, {system_text(exc.cause)}"
    if isinstance(exc, BootstrapError | OSError):
        return f"RAFS failed to handle request, Failed to fill superBlock: {system_text(exc)}"
    return system_text(exc)


def system_text(exc: BaseException) -> str:
    """An error of the system as the reference prints it, any other by its own words."""
    if isinstance(exc, OSError) and exc.errno:
        return f"{os.strerror(exc.errno)} (os error {exc.errno})"
    if isinstance(exc, NydusError):
        return str(exc)
    if isinstance(exc, MemoryError):
        return system_text(OSError(errno.ENOMEM, ""))
    return f"{type(exc).__name__}: {exc}"
