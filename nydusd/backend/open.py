"""From the configuration to a backend; each kind is imported only when it is configured."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from nydusd.base.errors import ConfigError

if TYPE_CHECKING:
    from nydusd.backend.interface import BlobBackend
    from nydusd.config.model import Backend

_Section = TypeVar("_Section")

KNOWN = ("localfs", "localdisk", "http-proxy", "oss", "s3", "registry")


def open_backend(config: Backend) -> BlobBackend:
    """The backend that *config* names; nothing remote is contacted yet.

    `ConfigError` for an unknown type, a missing section, or a disk that cannot be used.
    """
    if config.type == "localfs":
        from nydusd.backend.localfs import LocalFsBackend

        return LocalFsBackend(section(config.type, config.localfs))
    if config.type == "localdisk":
        from nydusd.backend.localdisk import LocalDiskBackend

        return LocalDiskBackend(section(config.type, config.localdisk))
    if config.type == "http-proxy":
        from nydusd.backend.http_proxy import HttpProxyBackend

        return HttpProxyBackend(section(config.type, config.http_proxy))
    if config.type == "oss":
        from nydusd.backend.oss import OssBackend

        return OssBackend(section(config.type, config.oss))
    if config.type == "s3":
        from nydusd.backend.s3 import S3Backend

        return S3Backend(section(config.type, config.s3))
    if config.type == "registry":
        from nydusd.backend.registry import RegistryBackend

        return RegistryBackend(section(config.type, config.registry))
    raise ConfigError(f"backend type {config.type!r} is not known; known: {', '.join(KNOWN)}")


def section(kind: str, found: _Section | None) -> _Section:
    """The section of the configuration that backend type *kind* needs; `ConfigError` without."""
    if found is None:
        raise ConfigError(f"backend type {kind}: its section `{kind}` is missing")
    return found
