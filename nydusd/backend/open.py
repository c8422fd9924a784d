"""From the configuration to a backend; each kind is imported only when it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.base.errors import ConfigError, UnsupportedError

if TYPE_CHECKING:
    from nydusd.backend.interface import BlobBackend
    from nydusd.config.model import Backend

NOT_YET = ("localdisk", "oss", "s3", "registry", "http-proxy")


def open_backend(config: Backend) -> BlobBackend:
    """The backend that *config* names; nothing is contacted yet.

    `ConfigError` for an unknown type or a missing section, `UnsupportedError` for a type that is
    known but not here.
    """
    if config.type == "localfs":
        from nydusd.backend.localfs import LocalFsBackend

        if config.localfs is None:
            raise ConfigError("backend type localfs: its section `localfs` is missing")
        return LocalFsBackend(config.localfs)
    if config.type in NOT_YET:
        raise UnsupportedError(f"backend type {config.type} is not in this version yet")
    raise ConfigError(
        f"backend type {config.type!r} is not known; known: localfs, {', '.join(NOT_YET)}"
    )
