"""Every exception of the program, each with the errno that the kernel is given.

`errno_of` is the gate up (an exception becomes a number), `check` the way down (a number from
compiled code becomes an exception).
"""

import errno
import logging
import os
import time
from enum import StrEnum

logger = logging.getLogger("nydusd")

REPEAT_SECONDS = 60.0  # before the same words are logged again
BURST_LINES = 64  # that may come at once; later ones come one a second
REMEMBERED = 1024  # different lines


class NydusError(Exception):
    """Something that a user or an operator can act on: what was tried, on what, what came back."""

    errno: int = errno.EIO


class ConfigError(NydusError):
    """The configuration cannot be used; *problems* has one printable line for each reason."""

    errno = errno.EINVAL

    def __init__(self, message: str, problems: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems or (message,)


class BootstrapError(NydusError):
    """A bootstrap (or a table of one) is truncated, corrupt, hostile or of an unknown kind."""

    errno = errno.EINVAL


class UnsupportedError(NydusError):
    """A feature that this version does not have: said, never ignored."""

    errno = errno.ENOTSUP


class FailureKind(StrEnum):
    """What went wrong with a backend, for those who decide whether to ask again, and whom."""

    OTHER = "other"
    UNREACHABLE = "unreachable"  # no connection: name, route, refused
    BROKEN = "broken"  # the connection ended, or what came is not HTTP
    TIMEOUT = "timeout"
    TLS = "tls"
    STATUS = "status"  # an answer, and its status is not a success; `status` has it
    SHORT = "short"  # fewer bytes than asked for
    LONG = "long"  # more bytes than asked for
    RANGE = "range"  # other bytes than asked for
    AUTH = "auth"  # no credentials that are accepted
    REDIRECT = "redirect"  # a loop, or to where we do not go
    CANCELLED = "cancelled"
    CONFIG = "config"  # the request cannot be made at all


class BackendError(NydusError):
    """A blob's bytes could not be had from where they are stored.

    *status*: of HTTP, 0 without one. *received*: bytes from the start of the buffer that are good
    all the same. *retry_after*: seconds the server asks to be left alone.
    """

    errno = errno.EIO

    def __init__(
        self,
        message: str,
        kind: FailureKind = FailureKind.OTHER,
        *,
        status: int = 0,
        received: int = 0,
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.received = received
        self.retry_after = retry_after


class BlobCorrupt(NydusError):
    """Bytes of a blob are not what its bootstrap or blob meta promises."""

    errno = errno.EIO


class ChunkCorrupt(BlobCorrupt):
    """A chunk's digest, checksum or size is not the one its image promises."""

    def __init__(self, blob_id: str, chunk_index: int, what: str) -> None:
        super().__init__(f"blob {blob_id}: chunk {chunk_index}: {what}")
        self.elsewhere = (
            False  # set where it is looked for elsewhere from now on: worth another try
        )


class CacheError(NydusError):
    """A file of the cache directory cannot be used."""

    errno = errno.EIO


class MountError(NydusError):
    """A file system could not be mounted or unmounted."""

    errno = errno.EINVAL


class BuildError(NydusError):
    """An image could not be built or checked."""

    errno = errno.EINVAL


def errno_of(exc: BaseException) -> int:
    """The positive errno for *exc*, which is logged here, once."""
    if isinstance(exc, NydusError) or (isinstance(exc, OSError) and exc.errno):
        logger.error("%s", exc)
    else:
        logger.error("unexpected %s: %s", type(exc).__name__, exc, exc_info=exc)
    return _number_of(exc)


class ErrorLog:
    """`errno_of` for one source of many errors: a broken blob or backend cannot flood the log.

    The same words are logged once in a while, those of corrupt data once, and different ones at a
    limited rate; what was left out is counted, and told with the next line. Guarded by the GIL.
    """

    def __init__(self) -> None:
        self._seen: dict[str, float] = {}  # line -> when it was logged, seconds
        self._room = float(BURST_LINES)
        self._filled = time.monotonic()  # when _room was last added to
        self._left_out = 0

    def errno_of(self, exc: BaseException) -> int:
        """The positive errno for *exc*, which is logged here unless it was, or too many are."""
        now = time.monotonic()
        if not self._is_due(exc, now):
            return _number_of(exc)
        if self._left_out:
            logger.error("%d more errors like these were not logged", self._left_out)
            self._left_out = 0
        return errno_of(exc)

    def _is_due(self, exc: BaseException, now: float) -> bool:
        line = str(exc)
        seen = self._seen.get(line)
        if seen is not None and (isinstance(exc, BlobCorrupt) or now - seen < REPEAT_SECONDS):
            return False
        self._room = min(BURST_LINES, self._room + now - self._filled)
        self._filled = now
        if self._room < 1.0:
            self._left_out += 1
            return False
        self._room -= 1.0
        if len(self._seen) >= REMEMBERED:
            self._seen.clear()
        self._seen[line] = now
        return True


def _number_of(exc: BaseException) -> int:
    number = exc.errno if isinstance(exc, NydusError | OSError) else None
    return number or errno.EIO


def check(code: int, message: str, *args: object) -> None:
    """`OSError` for a negative *code* (`-errno`) of compiled code; nothing for 0 and above."""
    if code < 0:
        raise OSError(-code, f"{message % args if args else message}: {os.strerror(-code)}")
