"""Blob cache entries in their two shapes."""

import json

import pytest

from nydusd.base.errors import ConfigError
from nydusd.config.blob_entry import make_entry

SHORT = {
    "id": "cfg",
    "backend_type": "localfs",
    "backend_config": {"dir": "/blobs"},
    "cache_type": "fscache",
    "cache_config": {"work_dir": "/cache"},
    "prefetch_config": {"enable": True, "threads_count": 3, "merging_size": 65536},
    "metadata_path": "/boot",
}
LONG = {
    "version": 2,
    "id": "cfg",
    "backend": {"type": "localfs", "localfs": {"dir": "/blobs"}},
    "external_backends": [],
    "cache": {
        "type": "fscache",
        "fscache": {"work_dir": "/cache"},
        "prefetch": {"enable": True, "threads": 3, "batch_size": 65536, "prefetch_all": True},
    },
    "metadata_path": "/boot",
}
HEAD = {"type": "bootstrap", "id": "boot", "domain_id": "domain"}


def test_both_shapes_mean_the_same():
    short = make_entry({**HEAD, "config": SHORT})
    long = make_entry({**HEAD, "config_v2": LONG})

    assert short == long
    assert short.backend.localfs.dir == "/blobs"
    assert short.cache.fscache.work_dir == "/cache"
    assert short.cache.prefetch.threads == 3
    assert short.metadata_path == "/boot"
    assert (short.kind, short.id, short.domain_id) == ("bootstrap", "boot", "domain")


def test_the_second_shape_is_preferred():
    entry = make_entry({**HEAD, "config": SHORT, "config_v2": {**LONG, "metadata_path": "/other"}})

    assert entry.metadata_path == "/other"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"backend_type": "nosuch"}, "unsupported backend type"),
        ({"backend_config": {}}, "must not be empty"),
        ({"backend_config": 3}, "a table expected"),
        ({"cache_type": "x"}, "is not one of"),
        ({"cache_config": {"work_dir": ""}}, "must not be empty"),
        ({"prefetch_config": {"enable": True, "threads_count": 0}}, "1 to 1024 expected"),
        ({"metadata_path": 3}, "metadata_path"),
        ({"metadata_path": "a\0b"}, "metadata_path"),
    ],
)
def test_what_cannot_be_used_is_told(change, words):
    with pytest.raises(ConfigError, match=words):
        make_entry({**HEAD, "config": {**SHORT, **change}})


@pytest.mark.parametrize("name", ["version", "backend", "cache"])
def test_the_second_shape_needs_its_sections(name):
    config = {key: value for key, value in LONG.items() if key != name}

    with pytest.raises(ConfigError):
        make_entry({**HEAD, "config_v2": config})


def test_an_entry_without_configuration_is_refused():
    with pytest.raises(ConfigError, match="needs config or config_v2"):
        make_entry(HEAD)


def test_a_repr_shows_no_secret():
    config = {
        **SHORT,
        "backend_type": "registry",
        "backend_config": {"host": "h", "repo": "r", "auth": "dXNlcjpzZWNyZXQ="},
    }
    entry = make_entry({**HEAD, "config": config}, json.dumps(config))

    assert entry.backend.registry.auth == "dXNlcjpzZWNyZXQ="
    assert "dXNlcjpzZWNyZXQ=" not in repr(entry)
