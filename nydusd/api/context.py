"""What the handlers of requests reach."""

from typing import NamedTuple

from nydusd.daemon.daemon import Daemon


class Context(NamedTuple):
    """The daemon that a control socket belongs to."""

    daemon: Daemon
