"""Configurations in, the model or a clear error out."""

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nydusd.base.errors import ConfigError
from nydusd.config import load, model
from nydusd.config.load import examine, load_config, local_config_text, parse_config

V1 = {
    "device": {
        "backend": {"type": "localfs", "config": {"dir": "/blobs"}},
        "cache": {"type": "blobcache", "config": {"work_dir": "/cache"}},
    },
    "mode": "direct",
}
V2 = {
    "version": 2,
    "backend": {"type": "localfs", "localfs": {"dir": "/blobs"}},
    "cache": {"type": "filecache", "filecache": {"work_dir": "/cache"}},
    "rafs": {"mode": "direct"},
}
V2_TOML = """
version = 2
id = "my_id"
[backend]
type = "localfs"
[backend.localfs]
dir = "/blobs"
[cache]
type = "filecache"
[cache.filecache]
work_dir = "/cache"
[rafs]
mode = "direct"
"""


def changed(config, path, value):
    """A copy of *config* with *value* at the dotted *path*."""
    copy = json.loads(json.dumps(config))
    *parents, last = path.split(".")
    table = copy
    for name in parents:
        table = table.setdefault(name, {})
    table[last] = value
    return json.dumps(copy)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (json.dumps(V1), "version 1 JSON"),
        (json.dumps(V2), "version 2 JSON"),
        (V2_TOML, "version 2 TOML"),
    ],
)
def test_each_format_gives_the_same_tree(text, kind):
    report = examine(text)

    assert report.format == kind
    assert report.errors == report.warnings == ()
    assert report.config.backend.localfs == model.LocalFs(dir="/blobs")
    assert report.config.cache.filecache == model.FileCache(work_dir="/cache")
    assert report.config.rafs == model.Rafs()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "the file is empty"),
        (b"\xff\xfe{\x00", "byte order mark"),
        (b"\xef\xbb\xbf{}", "byte order mark"),
        (b'{"id": "\xff"}', "not UTF-8: byte 0xff at offset 8"),
        (b"{" + b" " * (1 << 20), "configuration file size is too big"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b"a = " + b"[" * 100_000, "nested too deep"),
        (b'{"device": NaN}', "NaN is not a number"),
        (b'{"device": ' + b"9" * 5000 + b"}", "limit"),
        (b"a." * 1000 + b"b = 1", "more than 16 dots"),
        (b'{"device": 1,}', "not JSON: line 1"),
        (b'{\n// hello\n"device": 1}', "not JSON: line 2, column 1"),
        (b"[backend\n", "not TOML"),
        (b"null", "the file: null found, a table expected"),
        (b'"text"', "the file: text found"),
        (b"version = 3", "version: not 2"),
        (b'{"version": 3, "backend": {}}', "version: not 2"),
        (b'{"backend": {}}', "version: missing"),
        (b'{"device": {}, "mode": "direct"}', "device.backend: missing"),
    ],
)
def test_what_is_no_configuration_is_an_error_that_says_why(text, problem):
    with pytest.raises(ConfigError, match="Failed to load config: ") as caught:
        parse_config(text)

    assert any(problem in each for each in caught.value.problems)
    assert all(each.isprintable() for each in caught.value.problems)


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        ("mode", "dirct", 'mode: "dirct" is not one of direct, cached'),
        ("mode", 5, "mode: 5 found, text expected"),
        ("amplify_io", 0x1000_0001, "amplify_io: 268435457 is more than 268435456 bytes"),
        ("amplify_io", -1, "amplify_io: -1 found, a whole number, 0 or more expected"),
        ("amplify_io", 1.5, "amplify_io: 1.5 found"),
        ("amplify_io", True, "amplify_io: true found"),
        ("digest_validate", "yes", 'digest_validate: text "yes" found, true or false expected'),
        ("iostats_files", None, "iostats_files: null found"),
        ("fs_prefetch", {"enable": True, "threads_count": 0}, "fs_prefetch.threads_count: 0 thr"),
        ("fs_prefetch", {"enable": True, "threads_count": 1025}, "threads_count: 1025 threads"),
        ("fs_prefetch", {"enable": True, "merging_size": 1 << 40}, "fs_prefetch.merging_size: "),
        ("device.backend.type", "http-proxy", "unsupported backend type"),
        ("device.backend.type", "ftp", "device.backend.type: unsupported backend type"),
        ("device.backend.config", [], "device.backend.config: a list found, a table expected"),
        ("device.backend.config", {}, "backend.config.dir: blob_file or dir must not be empty"),
        ("device.backend.config.dir", "/a\0b", "text without NUL"),
        ("device.backend.config.dir", "\ud800", "text without NUL and lone surrogates"),
        ("device.backend.config.alt_dirs", [1], "alt_dirs: a list found, a list of texts expected"),
        ("device.cache.type", "disk", 'device.cache.type: "disk" is not one of'),
        ("device.cache.config", None, "device.cache.config: null found, a table expected"),
        ("device.cache.config.work_dir", "", "device.cache.config.work_dir: must not be empty"),
        ("overlay", {"upper_dir": "/u"}, "overlay: needs a configuration of version 2"),
    ],
)
def test_a_bad_value_of_version_1_is_named_with_its_path(path, value, problem):
    report = examine(changed(V1, path, value))

    assert any(problem in each for each in report.errors), report.errors
    assert len(report.errors) == 1
    expected = load.UNSUPPORTED if "yet" in problem else load.UNPARSABLE
    assert report.reason == expected


@pytest.mark.parametrize(
    ("path", "value", "problem", "reason"),
    [
        ("backend.type", "nfs", 'backend.type: "nfs" is not one of', load.INVALID),
        ("backend.type", "oss", 'backend.oss: missing, and type is "oss"', load.INVALID),
        ("backend.localfs", {}, "backend.localfs.dir: blob_file or dir must", load.INVALID),
        ("cache.filecache", None, 'cache.filecache: missing, and type is "', load.INVALID),
        ("cache.type", "disk", 'cache.type: "disk" is not one of', load.INVALID),
        ("cache.prefetch", {}, "cache.prefetch.enable: missing", load.UNPARSABLE),
        ("rafs.mode", "foo", 'rafs.mode: "foo" is not one of', load.INVALID),
        ("rafs", None, "no configuration information for rafs", load.INVALID),
        ("rafs.prefetch.enable", 1, "rafs.prefetch.enable: 1 found, true or", load.UNPARSABLE),
        ("rafs.batch_size", 1 << 70, "rafs.batch_size: a number of 71 bits found", load.UNPARSABLE),
        (
            "overlay",
            {"upper_dir": "", "work_dir": "/w"},
            "overlay.upper_dir: is empt",
            load.INVALID,
        ),
        ("cache.filecache.enable_convergent_encryption", True, "not in this", load.UNSUPPORTED),
        ("external_backends", [{"type": ""}] * 1001, "1001 tables, at most", load.INVALID),
        ("external_backends", {}, "external_backends: a table found, a list", load.UNPARSABLE),
    ],
)
def test_a_bad_value_of_version_2_is_named_with_its_path(path, value, problem, reason):
    report = examine(changed(V2, path, value))

    assert any(problem in each for each in report.errors), report.errors
    assert report.reason == reason


def test_all_mistakes_are_told_at_once():
    text = changed(V1, "mode", "x").replace("blobcache", "disk").replace('"dir"', '"dri"')

    errors = examine(text).errors

    assert [each.partition(":")[0] for each in errors] == [
        "mode",
        "device.backend.config.dir",
        "device.cache.type",
    ]


def test_an_unknown_key_is_a_warning_with_the_nearest_known_name(caplog):
    text = changed(V1, "fs_prefetch", {"thread_count": 4})

    with caplog.at_level(logging.WARNING, "nydusd"):
        parse_config(text)

    assert caplog.messages == [
        "configuration: fs_prefetch.thread_count: unknown key, ignored,"
        " the nearest known name is threads_count"
    ]


def test_a_hundred_thousand_unknown_keys_make_some_warnings():
    hostile = {f"\n{number}" + "x" * 3: 0 for number in range(50_000)}

    report = examine(json.dumps({**V1, **hostile}))

    assert report.config is not None
    assert len(report.warnings) < 60
    assert all(each.isprintable() for each in report.warnings)


def test_keys_that_other_programs_write_are_silent_until_they_ask_for_something():
    quiet = changed(V1, "device.backend.config.readahead", False)
    mapped = changed(V1, "id_mapping", [0, 1000, 1])

    assert examine(quiet).warnings == ()
    assert examine(mapped).warnings == ("id_mapping: known, but without effect",)


def test_a_key_given_twice_is_an_error():
    text = json.dumps(V1).replace('"mode": "direct"', '"mode": "direct", "mode": "cached"')

    assert examine(text).errors == ("mode: given more than once",)


def test_a_key_given_twice_in_toml_is_an_error_with_its_line():
    report = examine(V2_TOML + 'mode = "cached"\n')

    assert "line 14" in report.errors[0]


def test_secrets_are_not_in_messages():
    storage = {
        "type": "oss",
        "oss": {
            "endpoint": "h",
            "bucket_name": "b",
            "access_key_id": 12345,
            "access_key_secret": ["UNSPOKEN"],
            "proxy": {"url": 678},
        },
    }

    report = examine(changed(V2, "backend", storage))

    assert len(report.errors) == 3
    assert not any(word in text for text in report.errors for word in ("12345", "UNSPOKEN", "678"))


@pytest.mark.parametrize("key", ["proxy", "mirrors"])
def test_a_url_in_the_place_of_a_table_is_not_shown(key):
    storage = {"host": "h", "repo": "r", key: "http://user:UNSPOKEN@host"}

    report = examine(changed(V1, "device.backend", {"type": "registry", "config": storage}))

    assert len(report.errors) == 1
    assert "UNSPOKEN" not in report.errors[0]


def test_a_proxy_and_mirrors_are_refused_together():
    registry = {
        "host": "h",
        "repo": "r",
        "proxy": {"url": "http://p"},
        "mirrors": [{"host": "http://m", "headers": {"A": "b"}}],
    }
    text = changed(V1, "device.backend", {"type": "registry", "config": registry})

    assert examine(text).errors == (
        "device.backend.config: proxy and mirrors cannot be configured at the same time.",
    )


def test_the_first_problem_and_the_count_of_others_is_the_message():
    with pytest.raises(ConfigError) as caught:
        parse_config(changed(V2, "rafs.mode", "foo").replace('"filecache"', '"disk"', 1))

    assert str(caught.value).startswith("Failed to load config: invalid configuration: ")
    assert str(caught.value).endswith("(and 1 more: --check-config lists all)")


def test_a_file_comes_back_with_its_text(tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(V1))

    config, text = load_config(str(file))

    assert config.backend.type == "localfs"
    assert json.loads(text) == V1


@pytest.mark.parametrize("path", ["missing", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path, path):
    with pytest.raises(ConfigError, match="Failed to load config"):
        load_config(str(tmp_path / path))


def test_a_local_folder_stands_for_blobs_and_their_cache():
    config = parse_config(local_config_text('/a "b"'))

    assert config.backend.localfs.dir == config.cache.filecache.work_dir == '/a "b"'
    assert config.cache.type == "blobcache"
    assert not config.cache.compressed


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
PATHS = [
    "device",
    "device.backend",
    "device.backend.config",
    "device.cache",
    "device.cache.config",
    "mode",
    "fs_prefetch",
    "fs_prefetch.threads_count",
    "version",
    "backend.localfs",
    "backend.registry",
    "cache.prefetch",
    "rafs.prefetch",
    "external_backends",
    "overlay",
]


@given(st.sampled_from([V1, V2]), st.sampled_from(PATHS), json_values)
def test_any_value_anywhere_gives_a_configuration_or_printable_errors(config, path, value):
    try:
        text = changed(config, path, value)
    except (TypeError, AttributeError):
        return  # a path through something that is no table
    report = examine(text)

    assert (report.config is None) == bool(report.errors)
    assert all(each.isprintable() for each in report.errors + report.warnings)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_configuration_or_errors(data):
    assert examine(data).errors


def test_values_that_cannot_be_used_are_told_beside_those_that_cannot_be_read():
    report = examine(
        """
version = 2
[backend]
type = "registry"
[backend.registry]
host = ""
repo = 7
timeout = "5s"
[[backend.registry.mirrors]]
host = "http://mirror.example/v2"
[cache]
type = "floppy"
[rafs]
batch_size = -1
"""
    )

    assert [error.partition(": ")[0] for error in report.errors] == [
        "backend.registry.repo",
        "backend.registry.timeout",
        "rafs.batch_size",
        "backend.registry.mirrors[0].host",
        "backend.registry.host",
        "cache.type",
    ]


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("registry", "host", "http://h"),
        ("registry", "host", "h/path"),
        ("registry", "host", "h h"),
        ("registry", "host", "h:99999"),
        ("registry", "blob_url_scheme", "gopher"),
        ("registry", "blob_redirected_host", "https://cdn"),
        ("registry", "blob_redirected_host", "cdn/path"),
        ("oss", "endpoint", "http://e"),
        ("s3", "endpoint", "e/x"),
        ("http-proxy", "addr", "h:80"),
        ("http-proxy", "addr", "ftp://h"),
        ("http-proxy", "addr", "http://"),
    ],
)
def test_an_address_that_cannot_be_is_told_with_its_key(kind, key, value):
    whole = {"host": "h", "repo": "r", "endpoint": "e", "bucket_name": "b", "region": "r"}
    backend = {"type": kind, kind: {**whole, "addr": "http://h", key: value}}
    report = examine(json.dumps({**V2, "backend": backend}))

    assert [text.partition(":")[0] for text in report.errors] == [f"backend.{kind}.{key}"]


def test_addresses_of_every_form_are_taken():
    for host in ("h", "h:5000", "127.0.0.1:5000", "[::1]:5000", "registry.example.org"):
        registry = {"host": host, "repo": "r", "blob_redirected_host": host, "blob_url_scheme": ""}
        backend = {"type": "registry", "registry": registry}
        assert not examine(json.dumps({**V2, "backend": backend})).errors
    for addr in ("/run/socket", "run/socket", "http://h:1/path", "https://user:password@h"):
        backend = {"type": "http-proxy", "http-proxy": {"addr": addr}}
        assert not examine(json.dumps({**V2, "backend": backend})).errors
