"""What the environment adds to a configuration: registry credentials and request headers."""

import logging
from collections.abc import Mapping
from typing import Any, Final

from nydusd.config.checks import HEADER_NAME, HEADER_VALUE
from nydusd.config.model import Backend, Config, HttpProxy, ObjectStorage, Registry

logger = logging.getLogger("nydusd")

AUTH: Final = "IMAGE_PULL_AUTH"
HEADER_PREFIX: Final = "NYDUS_HEADER_"


def request_headers(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """The headers that `NYDUS_HEADER_<Name>=<value>` asks for, sorted; `_` stays as it is."""
    headers = []
    for variable, value in sorted(environ.items()):
        if not variable.startswith(HEADER_PREFIX):
            continue
        name = variable.removeprefix(HEADER_PREFIX)
        if HEADER_NAME.fullmatch(name) and HEADER_VALUE.fullmatch(value):
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
