"""What a daemon tells of itself and its mounts, as the JSON tables of its API (spec: http-api)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from nydusd.base import version
from nydusd.config.model import without_secrets
from nydusd.config.v2 import to_v2_dict
from nydusd.daemon.errors import NotMounted, WrongMountKind
from nydusd.daemon.mount_request import MountKind, normal_mountpoint
from nydusd.rafs.superblock import describe_superblock

if TYPE_CHECKING:
    from nydusd.config.model import Config
    from nydusd.daemon.daemon import Daemon
    from nydusd.daemon.mounts import Mount

# What the reference shows as null where it is not set.
SECTIONS = {
    "backend": ("type", "localdisk", "localfs", "oss", "s3", "registry", "http-proxy"),
    "cache": ("filecache", "fscache"),
}
SHOWN_KINDS = {MountKind.RAFS: "Rafs", MountKind.PASSTHROUGH: "PassthroughFs"}


def version_info() -> dict[str, str]:
    """What this build is."""
    return {
        "package_ver": version.VERSION,
        "git_commit": version.GIT_COMMIT,
        "build_time": version.BUILD_TIME,
        "profile": version.PROFILE,
        "rustc": version.COMPILER,
    }


def daemon_info(daemon: Daemon, *, with_mounts: bool) -> dict[str, Any]:
    """The daemon, its state and, *with_mounts*, what it serves; no secrets."""
    mounts = daemon.mounts.list()
    return {
        "version": version_info(),
        "id": daemon.settings.id,
        "supervisor": daemon.settings.supervisor,
        "state": daemon.shown_state,
        "backend_collection": (
            {path: mount_info(path, mount) for path, mount in sorted(mounts.items())}
            if with_mounts
            else None
        ),
    }


def mount_info(path: str, mount: Mount) -> dict[str, Any]:
    """One mount as it was asked for, without its secrets."""
    is_image = mount.request.kind is MountKind.RAFS
    return {
        "backend_type": SHOWN_KINDS[mount.request.kind],
        "mountpoint": path,
        "mounted_time": shown_time(mount.mounted_ns),
        "config": shown_config(mount.request.config) if is_image else None,
    }


def shown_config(config: Config) -> dict[str, Any]:
    """*config* in version 2, without secrets; sections that are not there are null."""
    shown = to_v2_dict(without_secrets(config))
    shown.setdefault("overlay", None)
    for name, kinds in SECTIONS.items():
        if isinstance(shown.get(name), dict):
            shown[name] = {**dict.fromkeys(kinds), **shown[name]}
    return shown


def superblock_info(daemon: Daemon, path: str) -> dict[str, Any]:
    """The superblock of the image mounted at *path*; `NotMounted`, `WrongMountKind`."""
    mount = daemon.mounts.list().get(normal_mountpoint(path))
    if mount is None:
        raise NotMounted(f"{path} is not mounted")
    if mount.request.kind is not MountKind.RAFS:
        raise WrongMountKind(f"{mount.request.mountpoint} shows no image")
    return describe_superblock(mount.parts.bootstrap)


def shown_time(nanoseconds: int) -> str:
    """UTC as clients parse it: `2026-11-24 06:54:36.949037574 +00:00:00`, zeros at the end cut."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    digits = f"{fraction:09d}".rstrip("0") or "0"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{digits} +00:00:00"
