"""One mount as the API shows it: a JSON text without secrets, made when the mount is."""

import json
import time
from typing import Any

from nydusd.config.model import Config, without_secrets
from nydusd.config.v2 import to_v2_dict
from nydusd.daemon.mount_request import MountKind, MountRequest

# What the reference shows as null where it is not set.
SECTIONS = {
    "backend": ("type", "localdisk", "localfs", "oss", "s3", "registry", "http-proxy"),
    "cache": ("filecache", "fscache"),
}
SHOWN_KINDS = {MountKind.RAFS: "Rafs", MountKind.PASSTHROUGH: "PassthroughFs"}


def mount_text(path: str, request: MountRequest, mounted_ns: int) -> str:
    """*request*, mounted at *path* at *mounted_ns* (since the epoch)."""
    is_image = request.kind is MountKind.RAFS
    shown = {
        "backend_type": SHOWN_KINDS[request.kind],
        "mountpoint": path,
        "mounted_time": shown_time(mounted_ns),
        "config": shown_config(request.config) if is_image else None,
    }
    return json.dumps(shown, separators=(",", ":"))


def shown_config(config: Config) -> dict[str, Any]:
    """*config* in version 2, without secrets; sections that are not there are null."""
    shown = to_v2_dict(without_secrets(config))
    shown.setdefault("overlay", None)
    for name, kinds in SECTIONS.items():
        if isinstance(shown.get(name), dict):
            shown[name] = {**dict.fromkeys(kinds), **shown[name]}
    return shown


def shown_time(nanoseconds: int) -> str:
    """UTC as clients parse it: `2026-11-24 06:54:36.949037574 +00:00:00`, zeros at the end cut."""
    seconds, fraction = divmod(nanoseconds, 10**9)
    digits = f"{fraction:09d}".rstrip("0") or "0"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{digits} +00:00:00"
