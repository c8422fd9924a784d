"""Settings of a mount's backend that change while it is mounted: credentials and addresses.

What was changed belongs to the mount from then on: a successor of this daemon gets it with the
mount's configuration. Secrets go in and are never shown.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from nydusd.base.errors import NydusError, UnsupportedError
from nydusd.config.model import MASK, Backend, Config, Registry, mask_url
from nydusd.config.v2 import to_v2_dict
from nydusd.daemon.errors import NotMounted

if TYPE_CHECKING:
    from nydusd.daemon.mounts import Mount, Mounts

NAMES: Final = ("registry_auth", "proxy_url", "dragonfly_scheduler_endpoint")


class UnknownSetting(NydusError):
    """There is no such setting."""


class RuntimeSettings:
    """The settings of *mounts*; called by the API's main thread and the control thread."""

    def __init__(self, mounts: Mounts) -> None:
        self._mounts = mounts

    def change(self, mountpoint: str, settings: dict[str, str]) -> None:
        """Set *settings* (name to value) for the image at *mountpoint*, "" for every one.

        `UnknownSetting` for a name that nobody has, `UnsupportedError` when the backend of the
        mount has none of the kind, `NotMounted`. All is checked before anything is changed.
        """
        for name in settings:
            if name not in NAMES:
                raise UnknownSetting(f"there is no setting {name!r}")
        found = self._chosen(mountpoint)
        for mount in found.values():
            for name in settings:
                if changed_config(mount.request.config, name, "") is None:
                    kind = mount.request.config.backend
                    raise UnsupportedError(
                        f"backend {kind.type if kind else 'none'} has no setting {name}"
                    )
        for path, mount in found.items():
            self._change_one(path, mount, settings)

    def _chosen(self, mountpoint: str) -> dict[str, Mount]:
        mounts = self._mounts.list()
        if not mountpoint:
            return {path: mount for path, mount in mounts.items() if mount.request.config.backend}
        if mountpoint not in mounts:
            raise NotMounted(f"{mountpoint} is not mounted")
        return {mountpoint: mounts[mountpoint]}

    def _change_one(self, path: str, mount: Mount, settings: dict[str, str]) -> None:
        config = mount.request.config
        for name, value in settings.items():
            if not mount.image.backend.change_setting(name, value):
                raise UnsupportedError(f"the backend of {path} cannot change {name} while it runs")
            config = changed_config(config, name, value) or config
        text = json.dumps(to_v2_dict(config))
        self._mounts.note_request(path, mount.request._replace(config=config, config_text=text))

    def shown(self, mountpoint: str | None) -> dict[str, str]:
        """What is set, secrets as `***`; of all mounts, by `MOUNTPOINT:NAME`, without a name."""
        if mountpoint is not None:
            mount = self._mounts.list().get(mountpoint)
            return shown_settings(mount) if mount is not None else {}
        return {
            f"{path}:{name}": value
            for path, mount in self._mounts.list().items()
            for name, value in shown_settings(mount).items()
        }


def changed_config(config: Config, name: str, value: str) -> Config | None:
    """*config* with setting *name* at *value*; None when its backend has no such setting."""
    backend = config.backend
    section: Any = section_of(backend)
    if backend is None or section is None:
        return None
    if name == "registry_auth":
        if not isinstance(section, Registry):
            return None
        section = section._replace(auth=value)
    elif hasattr(section, "connection"):
        field = "url" if name == "proxy_url" else name
        proxy = section.connection.proxy._replace(**{field: value})
        section = section._replace(connection=section.connection._replace(proxy=proxy))
    else:
        return None
    sections: dict[str, Any] = {field_of(backend): section}
    return config._replace(backend=backend._replace(**sections))


def field_of(backend: Backend) -> str:
    """The field with the section that is in force."""
    return backend.type.replace("-", "_")


def section_of(backend: Backend | None) -> object:
    """The section that is in force; None without one."""
    return getattr(backend, field_of(backend), None) if backend is not None else None


def shown_settings(mount: Mount) -> dict[str, str]:
    """The settings of *mount* that have a value, fit to be shown."""
    section: Any = section_of(mount.request.config.backend)
    shown = {}
    if isinstance(section, Registry) and section.auth:
        shown["registry_auth"] = MASK
    if hasattr(section, "connection"):
        proxy = section.connection.proxy
        shown["proxy_url"] = mask_url(proxy.url)
        shown["dragonfly_scheduler_endpoint"] = mask_url(proxy.dragonfly_scheduler_endpoint)
    return {name: value for name, value in shown.items() if value}
