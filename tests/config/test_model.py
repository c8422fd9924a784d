"""The model shows no secret and gives none away."""

import pytest

from nydusd.config import model
from nydusd.config.model import mask_url, without_secrets

CONFIG = model.Config(
    backend=model.Backend(
        "registry",
        oss=model.ObjectStorage("e", "b", access_key_id="UNSPOKEN1", access_key_secret="UNSPOKEN2"),
        registry=model.Registry(
            "h",
            "r",
            auth="UNSPOKEN3",
            registry_token="UNSPOKEN4",
            connection=model.Connection(
                proxy=model.Proxy(url="http://user:UNSPOKEN5@proxy:1"),
                mirrors=(
                    model.Mirror(
                        "http://UNSPOKEN6@mirror", headers=(("Authorization", "UNSPOKEN7"),)
                    ),
                ),
                headers=(("X-Token", "UNSPOKEN8"),),
            ),
        ),
    ),
    external_backends=(model.ExternalBackend("x", config=(("key", "UNSPOKEN9"),)),),
    cache=model.Cache("filecache", filecache=model.FileCache(encryption_key="UNSPOKEN10")),
)


def test_a_repr_shows_no_secret():
    assert "UNSPOKEN" not in repr(CONFIG)
    assert "http://user:***@proxy:1" in repr(CONFIG)


def test_without_secrets_nothing_secret_is_left_and_the_rest_is():
    bare = without_secrets(CONFIG)
    everything = repr([bare.backend._asdict(), *bare.backend.registry.connection])

    assert "UNSPOKEN" not in everything
    assert bare.backend.registry.auth is bare.backend.registry.registry_token is None
    assert bare.backend.oss.access_key_id == bare.backend.oss.access_key_secret == ""
    assert bare.cache.filecache.encryption_key == ""
    assert bare.backend.registry.connection.proxy.url == "http://user:***@proxy:1"
    assert bare.backend.registry.connection.mirrors[0].headers == (("Authorization", "***"),)
    assert bare.backend.registry.host == "h"
    assert bare.cache.type == "filecache"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        ("", ""),
        ("http://host:80/path", "http://host:80/path"),
        ("http://u:p@host", "http://u:***@host"),
        ("u:p@host:80", "u:***@host:80"),
        ("https://token@host", "https://***@host"),
        ("http://u:p/a@b@host", "http://u:***@host"),
    ],
)
def test_a_password_in_a_url_is_masked(url, masked):
    assert mask_url(url) == masked
