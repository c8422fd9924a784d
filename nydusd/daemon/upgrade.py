"""Handing the session and the mounts over to another process, and taking them over.

Called on the control thread by the API; the supervisor is a socket that somebody else listens on.
"""

from nydusd.base.errors import UnsupportedError
from nydusd.daemon.daemon import Daemon
from nydusd.daemon.errors import UpgradeFailed


class Upgrade:
    """The transfers of *daemon*."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _supervisor(self) -> str:
        path = self._daemon.settings.supervisor
        if path is None:
            raise UpgradeFailed("MissingSupervisorPath")
        return path

    def send(self) -> None:
        """Give state and session to the supervisor; `UpgradeFailed`."""
        raise UnsupportedError(f"sending to {self._supervisor()} is not in this version yet")

    def take_over(self) -> None:
        """Become what the supervisor's state says; `UpgradeFailed`."""
        raise UnsupportedError(f"taking over from {self._supervisor()} is not in this version yet")
