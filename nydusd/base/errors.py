"""Every exception of the program, each with the errno that the kernel is given.

`errno_of` is the gate up (an exception becomes a number), `check` the way down (a number from
compiled code becomes an exception).
"""

import errno
import logging
import os

logger = logging.getLogger("nydusd")


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


class BackendError(NydusError):
    """A blob's bytes could not be had from where they are stored."""

    errno = errno.EIO


class BlobCorrupt(NydusError):
    """Bytes of a blob are not what its bootstrap or blob meta promises."""

    errno = errno.EIO


class ChunkCorrupt(BlobCorrupt):
    """A chunk's digest, checksum or size is not the one its image promises."""

    def __init__(self, blob_id: str, chunk_index: int, what: str) -> None:
        super().__init__(f"blob {blob_id}: chunk {chunk_index}: {what}")


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
    if isinstance(exc, NydusError):
        logger.error("%s", exc)
        return exc.errno
    if isinstance(exc, OSError) and exc.errno:
        logger.error("%s", exc)
        return exc.errno
    logger.error("unexpected %s: %s", type(exc).__name__, exc, exc_info=exc)
    return errno.EIO


def check(code: int, message: str, *args: object) -> None:
    """`OSError` for a negative *code* (`-errno`) of compiled code; nothing for 0 and above."""
    if code < 0:
        raise OSError(-code, f"{message % args if args else message}: {os.strerror(-code)}")
