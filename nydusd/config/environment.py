"""What the environment adds to a configuration: registry credentials and request headers."""

import logging
import re
from collections.abc import Mapping
from typing import Any, Final

from nydusd.config.model import Backend, Config, HttpProxy, ObjectStorage, Registry

logger = logging.getLogger("nydusd")

AUTH: Final = "IMAGE_PULL_AUTH"
HEADER_PREFIX: Final = "NYDUS_HEADER_"
# Header names and values of HTTP (RFC 9110, 5.1 and 5.5), so that none can start another header.
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


def request_headers(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers that `NYDUS_HEADER_<Name>=<value>` asks for, sorted; `_` stays as it is."""
    headers = []
    for variable, value in sorted(environ.items()):
        if not variable.startswith(HEADER_PREFIX):
            continue
        name = variable.removeprefix(HEADER_PREFIX)
        if _NAME.fullmatch(name) and _VALUE.fullmatch(value):
            headers.append((name, value))
        else:
            logger.warning("%a: not usable as a request header, ignored", variable)
    return tuple(headers)


def with_environment(config: Config, environ: Mapping[str, str]) -> Config:
    """*config* with the registry credentials and request headers of *environ*.

    `IMAGE_PULL_AUTH` (base64 of user:password) wins over what the file has; it changes nothing
    when the backend is no registry.
    """
    if config.backend is None:
        return config
    backend = config.backend
    auth = environ.get(AUTH)
    if auth and backend.registry is not None:
        backend = backend._replace(registry=backend.registry._replace(auth=auth))
    headers = request_headers(environ)
    if headers:
        backend = _with_headers(backend, headers)
    return config._replace(backend=backend)


def _with_headers(backend: Backend, headers: tuple[tuple[str, str], ...]) -> Backend:
    changed: dict[str, Any] = {}
    for name, part in backend._asdict().items():
        if isinstance(part, ObjectStorage | Registry | HttpProxy):
            connection = part.connection._replace(headers=headers)
            changed[name] = part._replace(connection=connection)
    return backend._replace(**changed)
