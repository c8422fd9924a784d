"""Version 2 comes back as it went in."""

import json

from nydusd.config.load import parse_config
from nydusd.config.v2 import to_v2_dict
from tests.config.test_load import V1, V2, V2_TOML


def test_what_is_written_reads_back_the_same():
    for text in (json.dumps(V1), json.dumps(V2), V2_TOML):
        config = parse_config(text)

        assert parse_config(json.dumps(to_v2_dict(config))) == config


def test_every_key_of_a_full_file_arrives():
    text = """
version = 2
id = "full"
[backend]
type = "http-proxy"
[backend.http-proxy]
addr = "http://h"
path = "/p"
skip_verify = true
timeout = 7
connect_timeout = 8
retry_limit = 9
ca_cert_files = ["/ca.pem"]
[[backend.http-proxy.mirrors]]
host = "http://m"
headers = { A = "b" }
auth_through = true
health_check_interval = 1
failure_limit = 2
[[external_backends]]
type = "t"
patch = { a = "b" }
config = { c = "d" }
[cache]
type = "blobcache"
compressed = true
validate = true
[cache.prefetch]
enable = true
threads = 3
bandwidth_limit = 4
[cache.filecache]
work_dir = "/w"
disable_indexed_map = true
[rafs]
mode = "cached"
batch_size = 0
validate = true
[rafs.prefetch]
enable = true
prefetch_all = true
"""
    config = parse_config(text)
    proxy = config.backend.http_proxy

    assert (proxy.addr, proxy.path) == ("http://h", "/p")
    assert proxy.connection[2:7] == (True, 7, 8, 9, ("/ca.pem",))
    assert proxy.connection.mirrors[0] == ("http://m", "", (("A", "b"),), True, 1, 2)
    assert config.external_backends[0] == ("t", (("a", "b"),), (("c", "d"),))
    assert config.cache.prefetch[:4] == (True, 3, 1 << 20, 4)
    assert config.cache.filecache.disable_indexed_map
    assert (config.rafs.mode, config.rafs.batch_size) == ("cached", 0)
    assert config.rafs.prefetch.prefetch_all
    assert to_v2_dict(config)["backend"]["http-proxy"]["mirrors"][0]["headers"] == {"A": "b"}


def test_the_value_of_prefetch_all_is_off_unless_said():
    prefetch = {"enable": True}

    config = parse_config(json.dumps({**V2, "rafs": {"prefetch": prefetch}}))

    assert config.rafs.prefetch.threads == 8
    assert not config.rafs.prefetch.prefetch_all
