"""An import of asyncio and uvloop that does not bring OpenSSL along.

Both import `ssl` and take classes from it, for what is served over TLS. A control socket is not:
OpenSSL would cost 7 ms of a start and 3 MiB for nothing.
"""

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

NAME = "ssl"


class NoTls(OSError):
    """Stands for the classes of `ssl`: it is no exception that is ever raised."""


class _StandIn(ModuleType):
    """A module that has every name: numbers for constants, a class for everything else."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):
            raise AttributeError(name)
        return 0 if name.isupper() else NoTls


@contextlib.contextmanager
def without_tls() -> Iterator[None]:
    """Have `import ssl` give an empty stand-in within, unless the real one is there.

    No other thread may import it meanwhile; nothing of the daemon does.
    """
    if NAME in sys.modules:
        yield
        return
    sys.modules[NAME] = _StandIn(NAME)
    try:
        yield
    finally:
        del sys.modules[NAME]
