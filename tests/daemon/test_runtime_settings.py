import json

import pytest

from nydusd.base.errors import UnsupportedError
from nydusd.config import model
from nydusd.config.load import parse_config
from nydusd.daemon.errors import NotMounted
from nydusd.daemon.mount_request import MountKind, MountRequest
from nydusd.daemon.mounts import Mount, Parts
from nydusd.daemon.runtime_settings import RuntimeSettings, UnknownSetting, changed_config

REGISTRY = model.Registry(
    host="h",
    repo="r",
    auth="b2xkOm9sZA==",
    connection=model.Connection(proxy=model.Proxy(url="http://u:p@proxy")),
)


class Backend:
    def __init__(self):
        self.changes = []

    def change_setting(self, name, value):
        self.changes.append((name, value))
        return name == "registry_auth"


class MountsOf:
    """The mounts of a daemon, as far as settings care."""

    def __init__(self, **backends):
        self.mounts = {}
        for name, backend in backends.items():
            config = model.Config(backend=backend, cache=model.Cache(), rafs=model.Rafs())
            request = MountRequest(MountKind.RAFS, "b", config, f"/{name}")
            parts = Parts(None, None, None, Backend(), None, None)
            self.mounts[f"/{name}"] = Mount(request, 1, 0, parts, "")

    def list(self):
        return self.mounts

    def note_request(self, path, request):
        self.mounts[path] = self.mounts[path]._replace(request=request)


@pytest.fixture
def mounts():
    return MountsOf(
        app=model.Backend(type="registry", registry=REGISTRY),
        local=model.Backend(type="localfs", localfs=model.LocalFs(dir="/b")),
    )


def test_new_credentials_reach_the_backend_and_a_successor(mounts):
    RuntimeSettings(mounts).change("/app", {"registry_auth": "bmV3Om5ldw=="})
    mount = mounts.list()["/app"]

    assert mount.parts.backend.changes == [("registry_auth", "bmV3Om5ldw==")]
    assert mount.request.config.backend.registry.auth == "bmV3Om5ldw=="
    assert parse_config(mount.request.config_text).backend.registry.auth == "bmV3Om5ldw=="
    assert "bmV3" not in repr(mount.request)


def test_no_secret_is_shown(mounts):
    settings = RuntimeSettings(mounts)
    shown = settings.shown("/app")

    assert shown == {"registry_auth": "***", "proxy_url": "http://u:***@proxy"}
    assert settings.shown(None) == {f"/app:{name}": value for name, value in shown.items()}
    assert settings.shown("/local") == settings.shown("/nobody") == {}
    assert "b2xk" not in json.dumps(shown)


@pytest.mark.parametrize(
    ("mountpoint", "settings", "error"),
    [
        ("/app", {"registry_auth": "x", "colour": "red"}, UnknownSetting),
        ("/nobody", {"registry_auth": "x"}, NotMounted),
        ("/local", {"registry_auth": "x"}, UnsupportedError),
        ("", {"registry_auth": "x"}, UnsupportedError),  # every one, and one of them has none
        ("/app", {"proxy_url": "http://other"}, UnsupportedError),
    ],
)
def test_what_cannot_be_changed_is_refused(mounts, mountpoint, settings, error):
    with pytest.raises(error):
        RuntimeSettings(mounts).change(mountpoint, settings)
    assert mounts.list()["/app"].request.config.backend.registry == REGISTRY


def test_an_address_belongs_to_any_remote_backend():
    config = model.Config(backend=model.Backend(type="registry", registry=REGISTRY))
    changed = changed_config(config, "proxy_url", "http://new")

    assert changed.backend.registry.connection.proxy.url == "http://new"
