"""What a mount is asked for with, and how the words of a client become that."""

from enum import Enum

from nydusd.base.errors import ConfigError, MountError
from nydusd.base.record import NamedTuple
from nydusd.config.load import parse_config
from nydusd.config.model import Config
from nydusd.daemon.errors import ConfigUnusable, UnknownMountKind
from nydusd.fs.pseudo import split_path
from nydusd.fs.vfs import normal


class MountKind(Enum):
    """What stands behind a mount, in the words of the mount API."""

    RAFS = "rafs"
    PASSTHROUGH = "passthrough_fs"


KINDS = {
    "rafs": MountKind.RAFS,
    "passthrough": MountKind.PASSTHROUGH,
    "passthroughfs": MountKind.PASSTHROUGH,
    "passthrough_fs": MountKind.PASSTHROUGH,
}


class MountRequest(NamedTuple):
    """One mount as it was asked for; enough to repeat it in another process.

    *config_text* is the configuration as it was written: it may hold secrets.
    """

    kind: MountKind
    source: str  # bootstrap path
    config: Config
    mountpoint: str  # absolute path in the tree of this daemon
    prefetch_files: tuple[str, ...] = ()  # absolute paths in the image; none = as the image hints
    config_text: str = ""  # not shown

    def __repr__(self) -> str:
        """What it asks for, without what may hold secrets."""
        return f"MountRequest({self.kind.value} {self.source!r} at {self.mountpoint!r})"


def normal_mountpoint(path: str) -> str:
    """*path* as mounts are listed; `MountError` when it is not one of this tree."""
    return normal(split_path(path))


def make_request(
    kind: str, source: str, config_text: str, mountpoint: str, prefetch_files: tuple[str, ...] = ()
) -> MountRequest:
    """The request that a client's words make.

    `UnknownMountKind`, `ConfigUnusable`, or `MountError` for paths that cannot be.
    """
    if kind not in KINDS:
        raise UnknownMountKind(kind)
    for path in prefetch_files:
        if not path.startswith("/") or "\0" in path:
            raise MountError("invalid prefetch file list")
    if "\0" in source:
        raise MountError("the source has a NUL in it")
    mountpoint = normal_mountpoint(mountpoint)
    config = Config()
    if KINDS[kind] is MountKind.RAFS:
        try:
            config = parse_config(config_text)
        except ConfigError as exc:
            raise ConfigUnusable(str(exc), exc.problems) from exc
    return MountRequest(KINDS[kind], source, config, mountpoint, prefetch_files, config_text)
