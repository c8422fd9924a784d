"""Handing the session and the mounts over to another process, and taking them over.

Called on the control thread by the API; the supervisor is a socket that somebody else listens on.
What fails leaves the daemon as it was: one that serves goes on, one that waits can be asked again.
"""

import logging
import os
from pathlib import Path

from nydusd.base.errors import NydusError
from nydusd.base.os_error import debug_custom_error
from nydusd.daemon.daemon import Daemon
from nydusd.daemon.errors import NotReady, UpgradeFailed
from nydusd.daemon.mount_request import MountKind, MountRequest, make_request
from nydusd.daemon.saved_state import (
    KIND_PASSTHROUGH,
    KIND_RAFS,
    SavedDirectory,
    SavedMount,
    SavedState,
    StateError,
    decode_state,
    encode_state,
)
from nydusd.daemon.supervisor import knock, receive_state, send_state
from nydusd.fuse.llfuse_session import Inherited, load_llfuse
from nydusd.fuse.mount import device_at

logger = logging.getLogger("nydusd")

SAVED_KINDS = {MountKind.RAFS: KIND_RAFS, MountKind.PASSTHROUGH: KIND_PASSTHROUGH}
KINDS = {saved: kind for kind, saved in SAVED_KINDS.items()}


class Upgrade:
    """The transfers of *daemon*."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    def _supervisor(self) -> str:
        path = self._daemon.settings.supervisor
        if path is None:
            raise UpgradeFailed("MissingSupervisorPath")
        return path

    # --- to a supervisor

    def send(self) -> None:
        """Give state and session to the supervisor; `UpgradeFailed`, `NotReady`."""
        path = self._supervisor()
        try:
            data = encode_state(self._state())
        except BaseException:
            knock(path)
            raise
        send_state(path, data, self._daemon.session.fd)
        logger.info("sent %d bytes of state and the FUSE session to %s", len(data), path)

    def _state(self) -> SavedState:
        daemon = self._daemon
        negotiation = daemon.session.negotiation
        if negotiation is None or daemon.session.fd < 0:
            raise NotReady("there is no session to hand over yet")
        last_slot, (next_directory, directories) = daemon.vfs.dump()
        return SavedState(
            mounts=tuple(
                saved_mount(mountpoint, mount.request, mount.slot)
                for mountpoint, mount in daemon.mounts.list().items()
            ),
            offered=negotiation[1],
            accepted=negotiation[2],
            directories=tuple(SavedDirectory(*each) for each in directories),
            next_directory=next_directory,
            last_slot=last_slot,
            connection=max(daemon.session.connection_id, 0),
        )

    # --- from a supervisor

    def take_over(self) -> None:
        """Become what the supervisor's state says, not serving yet; `UpgradeFailed`."""
        path = self._supervisor()
        load_llfuse()  # readers of an upgrade wait while the daemon starts, and not yet now
        data, fd = receive_state(path)
        try:
            state = decode_state(data)
            self._check_connection(state.connection)
            self._restore(state)
        except StateError as exc:
            os.close(fd)
            logger.error("%s", exc)  # noqa: TRY400  # the words say all
            reason = debug_custom_error("Other", f"Failed to load snapshot: {exc.reason}")
            raise UpgradeFailed(f"Deserialize({reason})") from exc
        except BaseException:
            os.close(fd)
            raise
        self._daemon.inherit(
            Inherited(
                fd,
                state.offered,
                state.accepted,
                self._daemon.settings.failover_policy,
                state.connection,
            )
        )

    def _check_connection(self, connection: int) -> None:
        """Refuse the session of another mount: its requests have the other's node ids."""
        mountpoint = self._daemon.settings.mountpoint
        present = device_at(Path(mountpoint))
        if present is None:
            logger.warning("nothing is mounted at %s any more", mountpoint)
        elif connection not in (present, 0):
            raise StateError(
                f"of FUSE connection {connection}, and {present} is mounted at {mountpoint}"
            )

    def _restore(self, state: SavedState) -> None:
        """Mount everything again in its slots; `UpgradeFailed` when nothing could be.

        An image that cannot be read any more is left out: its readers get errors, and those of the
        others go on.
        """
        daemon = self._daemon
        early = [mount.request for mount in daemon.mounts.list().values()]
        for request in early:  # nobody has seen them: the kernel was not ours
            daemon.mounts.umount(request.mountpoint)
        directories = [(each.ino, each.parent, each.name) for each in state.directories]
        done: list[str] = []
        try:
            daemon.vfs.restore((state.last_slot, (state.next_directory, directories)))
            failure = self._mount_all(state.mounts, done)
            if failure is not None and not done:
                raise failure  # undone below
        except (NydusError, OSError) as exc:
            for mountpoint in done:
                daemon.mounts.umount(mountpoint)
            raise UpgradeFailed(f"RestoreMounts({debug_custom_error('Other', str(exc))})") from exc
        # A mount moves the counter of slots; what comes next is what the other would have taken.
        daemon.vfs.restore((state.last_slot, (state.next_directory, directories)))
        taken = {mount.mountpoint for mount in state.mounts}
        daemon.restored = set(done)
        for request in early:
            if request.mountpoint not in taken:
                daemon.mounts.mount(request)

    def _mount_all(
        self, mounts: tuple[SavedMount, ...], done: list[str]
    ) -> NydusError | OSError | None:
        """Mount what can be, adding to *done*; the first failure."""
        failure: NydusError | OSError | None = None
        for saved in mounts:
            try:
                self._daemon.mounts.mount(saved_request(saved), saved.slot, recovers=True)
            except (NydusError, OSError) as exc:
                logger.error("%s cannot be mounted again: %s", saved.mountpoint, exc)  # noqa: TRY400
                failure = failure or exc
            else:
                done.append(saved.mountpoint)
                logger.info("backend fs restored at %s", saved.mountpoint)
        return failure


def saved_mount(mountpoint: str, request: MountRequest, slot: int) -> SavedMount:
    """*request*, which is mounted at *mountpoint*, as the state has it."""
    return SavedMount(
        mountpoint,
        SAVED_KINDS[request.kind],
        request.source,
        request.config_text,
        request.prefetch_files or None,
        slot,
    )


def saved_request(saved: SavedMount) -> MountRequest:
    """The request that makes *saved* again; `NydusError`."""
    return make_request(
        KINDS[saved.kind].value,
        saved.source,
        saved.config_text,
        saved.mountpoint,
        saved.prefetch_files or (),
    )
