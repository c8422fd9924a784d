"""What the daemon refuses, as types: the API has a status and words of its own for each."""

import errno

from nydusd.base.errors import ConfigError, MountError, NydusError


class AlreadyMounted(MountError):
    """Something is mounted at the path."""

    errno = errno.EEXIST


class NotMounted(MountError):
    """Nothing is mounted at exactly the path."""

    errno = errno.ENOENT


class WrongMountKind(MountError):
    """What is mounted there is not an image."""


class UnknownMountKind(MountError):
    """A kind of file system that nobody has: *kind* as it was written."""

    def __init__(self, kind: str) -> None:
        super().__init__(f"file system type {kind!r} is neither rafs nor passthrough_fs")
        self.kind = kind


class HostDirectoryUnusable(MountError):
    """A host directory cannot be shown; *cause* says why."""

    def __init__(self, source: str, cause: OSError) -> None:
        super().__init__(f"host directory {source}: {cause.strerror}")
        self.cause = cause


class ConfigUnusable(ConfigError):
    """The configuration of a mount request cannot be used."""


class NotReady(NydusError):
    """The daemon has nothing yet that the request is about."""

    errno = errno.EAGAIN


class NotSupported(NydusError):
    """Not with this kind of daemon."""

    errno = errno.ENOTSUP


class NoCounter(NydusError):
    """Nothing is counted under that name."""

    errno = errno.ENOENT


class UpgradeFailed(NydusError):
    """State and session could not be handed over; the message is what the API tells."""
