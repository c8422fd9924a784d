"""What the handlers of requests reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nydusd.base.record import NamedTuple

if TYPE_CHECKING:
    from nydusd.daemon.singleton import AnyDaemon


class Context(NamedTuple):
    """The daemon that a control socket belongs to."""

    daemon: AnyDaemon
