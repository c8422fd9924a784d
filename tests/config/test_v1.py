"""Version 1 means the same as version 2, in other places."""

import json

import pytest

from nydusd.config.load import parse_config
from nydusd.config.v2 import to_v2_dict
from tests.config.test_load import V1, changed


def test_the_file_that_the_snapshotter_writes_is_read_whole():
    text = json.dumps(
        {
            "device": {
                "id": "/3",
                "backend": {
                    "type": "registry",
                    "config": {
                        "readahead": False,
                        "host": "127.0.0.1:5000",
                        "repo": "e2e/app6",
                        "scheme": "http",
                        "proxy": {"fallback": False},
                        "timeout": 5,
                        "connect_timeout": 5,
                        "retry_limit": 2,
                    },
                },
                "cache": {
                    "type": "blobcache",
                    "config": {"work_dir": "/cache", "disable_indexed_map": False},
                },
            },
            "mode": "direct",
            "digest_validate": False,
            "enable_xattr": True,
            "amplify_io": 1048576,
            "fs_prefetch": {
                "enable": True,
                "prefetch_all": True,
                "threads_count": 8,
                "merging_size": 1048576,
            },
        }
    )

    config = parse_config(text)

    assert config.id == "/3"
    registry = config.backend.registry
    assert (registry.host, registry.repo, registry.scheme) == ("127.0.0.1:5000", "e2e/app6", "http")
    assert not registry.connection.proxy.fallback
    assert registry.connection.retry_limit == 2
    assert config.rafs.enable_xattr
    assert config.rafs.prefetch == config.cache.prefetch
    assert config.cache.prefetch.enable
    assert config.cache.prefetch.threads == 8


def test_an_empty_prefetch_section_has_the_defaults_of_version_1():
    prefetch = parse_config(changed(V1, "fs_prefetch", {})).rafs.prefetch

    assert (prefetch.enable, prefetch.threads, prefetch.batch_size, prefetch.prefetch_all) == (
        False,
        8,
        1 << 20,
        True,
    )


def test_an_absent_prefetch_section_is_all_off_as_clients_see_it_in_the_api():
    tables = to_v2_dict(parse_config(json.dumps(V1)))

    off = {
        "enable": False,
        "threads": 0,
        "batch_size": 0,
        "bandwidth_limit": 0,
        "stream_prefetch": False,
    }
    assert tables["rafs"]["prefetch"] == {**off, "prefetch_all": False}
    assert tables["cache"]["prefetch"] == {**off, "prefetch_all": True}


def test_a_cache_is_optional():
    config = json.loads(json.dumps(V1))
    del config["device"]["cache"]

    assert parse_config(json.dumps(config)).cache.type == ""


@pytest.mark.parametrize("kind", ["localdisk", "oss", "s3"])
def test_every_backend_of_version_1_is_read_with_its_own_keys(kind):
    settings = {
        "localdisk": {"device_path": "/dev/x"},
        "oss": {"endpoint": "e", "bucket_name": "b"},
        "s3": {"endpoint": "", "bucket_name": "b", "region": "r"},
    }[kind]

    config = parse_config(changed(V1, "device.backend", {"type": kind, "config": settings}))

    assert config.backend.type == kind
    assert getattr(config.backend, kind) is not None
