"""What a daemon tells of itself and its mounts, as the JSON texts of its API (spec: http-api).

The text of a mount is made once: a daemon with a thousand mounts is asked for all of them often.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from nydusd.base import version
from nydusd.daemon.errors import NotMounted, NotSupported, WrongMountKind
from nydusd.daemon.mount_request import MountKind, normal_mountpoint
from nydusd.rafs.superblock import describe_superblock

if TYPE_CHECKING:
    from nydusd.daemon.singleton import AnyDaemon


def version_info() -> dict[str, str]:
    """What this build is."""
    return {
        "package_ver": version.VERSION,
        "git_commit": version.GIT_COMMIT,
        "build_time": version.BUILD_TIME,
        "profile": version.PROFILE,
        "rustc": version.COMPILER,
    }


def daemon_text(daemon: AnyDaemon, *, with_mounts: bool) -> str:
    """The daemon, its state and, *with_mounts*, what it has mounted; no secrets."""
    head = {
        "version": version_info(),
        "id": daemon.settings.id,
        "supervisor": daemon.settings.supervisor,
        "state": daemon.shown_state,
    }
    shown = "null"
    if with_mounts and daemon.blobs is None:  # a singleton mounts nothing
        mounts = sorted(daemon.mounts.list().items())
        texts = [f"{json.dumps(path)}:{mount.text}" for path, mount in mounts]
        shown = f"{{{','.join(texts)}}}"
    return f'{json.dumps(head, separators=(",", ":"))[:-1]},"backend_collection":{shown}}}'


def superblock_info(daemon: AnyDaemon, path: str) -> dict[str, Any]:
    """The superblock of the image at *path*; `NotMounted`, `WrongMountKind`, `NotSupported`."""
    if daemon.blobs is not None:
        raise NotSupported(f"{path}: this daemon mounts no file systems")
    mount = daemon.mounts.list().get(normal_mountpoint(path))
    if mount is None:
        raise NotMounted(f"{path} is not mounted")
    if mount.request.kind is not MountKind.RAFS:
        raise WrongMountKind(f"{path} shows no image")
    return describe_superblock(mount.image.bootstrap)
