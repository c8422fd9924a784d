"""Every section and key of a configuration, each stated once.

The names, kinds, defaults and limits are those of nydus (nydus: api/src/config.rs, with `mirrors`
as its releases 2.0 to 2.2 have them); what each key means is told in docs/operations/config.md.
"""

from collections.abc import Iterator
from typing import Final

from nydusd.config import model
from nydusd.config.checks import (
    check_addr,
    check_auth,
    check_bucket,
    check_endpoint,
    check_headers,
    check_host,
    check_repo,
    check_token,
    check_url,
)
from nydusd.config.findings import printable
from nydusd.config.model import FILE_CACHE_TYPES, NO_CACHE_TYPES
from nydusd.config.schema import (
    BOOL,
    BYTE,
    NUMBER,
    OPTIONAL_TEXT,
    SIZE,
    TEXT,
    TEXT_LIST,
    TEXT_MAP,
    Key,
    Section,
)

MOST_BATCH_BYTES: Final = 0x1000_0000
MOST_THREADS: Final = 1024
BACKEND_TYPES: Final = ("localfs", "localdisk", "oss", "s3", "registry", "http-proxy")
MODES: Final = ("direct", "cached")
SCHEMES: Final = ("https", "http")

Problems = Iterator[tuple[str, str]]


def one_of(value: str, allowed: tuple[str, ...]) -> str:
    """What is wrong with *value* when it is none of *allowed*, or ""."""
    if value in allowed:
        return ""
    choices = ", ".join(name or '""' for name in allowed)
    return f'"{printable(value)}" is not one of {choices}'


def _check_mode(mode: str) -> str:
    return one_of(mode, MODES)


def _check_batch(size: int) -> str:
    return "" if size <= MOST_BATCH_BYTES else f"{size} is more than {MOST_BATCH_BYTES} bytes"


def _check_prefetch(prefetch: model.Prefetch) -> Problems:
    """The numbers count only when prefetch is on: files with it off often hold zeros."""
    if not prefetch.enable:
        return
    if not 1 <= prefetch.threads <= MOST_THREADS:
        yield "threads", f"{prefetch.threads} threads, 1 to {MOST_THREADS} expected"
    if text := _check_batch(prefetch.batch_size):
        yield "batch_size", text


PREFETCH: Final = Section(
    model.Prefetch,
    (
        Key("enable", BOOL, default=False, required="2"),
        Key("threads", SIZE, 8, v1="threads_count"),
        Key("batch_size", SIZE, model.DEFAULT_BATCH_SIZE, v1="merging_size"),
        Key("bandwidth_limit", NUMBER, 0, v1="bandwidth_rate"),
        Key("prefetch_all", BOOL, default=False, v1_default=True),
        Key("stream_prefetch", BOOL, default=False),
    ),
    check=_check_prefetch,
)


def _check_scheduler(endpoint: str) -> str:
    """The original asks this scheduler, by a client library, which peer has a blob."""
    if not endpoint:
        return ""
    return "is not supported: leave it out, and all goes through the HTTP proxy at url"


PROXY: Final = Section(
    model.Proxy,
    (
        Key("url", TEXT, "", secret=True, check=check_url),
        Key("ping_url", TEXT, "", secret=True, check=check_url),
        Key("fallback", BOOL, default=True),
        Key("check_interval", SIZE, 5),
        Key("use_http", BOOL, default=False),
        Key("check_pause_elapsed", SIZE, 300),
        Key("dragonfly_scheduler_endpoint", TEXT, "", secret=True, check=_check_scheduler),
    ),
)

MIRROR: Final = Section(
    model.Mirror,
    (
        Key("host", TEXT, "", required="12", secret=True, check=check_host),
        Key("ping_url", TEXT, "", secret=True, check=check_url),
        Key("headers", TEXT_MAP, (), secret=True, check=check_headers),
        Key("auth_through", BOOL, default=False),
        Key("health_check_interval", SIZE, 5),
        Key("failure_limit", BYTE, 5),
    ),
)


def _check_connection(connection: model.Connection) -> Problems:
    if connection.proxy.url and connection.mirrors:
        yield "", "proxy and mirrors cannot be configured at the same time."
    if connection.client_key_file and not connection.client_cert_file:
        yield "client_cert_file", "missing, and client_key_file is set"


CONNECTION: Final = Section(
    model.Connection,
    (
        Key("proxy", section=PROXY, default=model.Proxy()),
        Key("mirrors", sections=MIRROR, default=()),
        Key("skip_verify", BOOL, default=False),
        Key("timeout", NUMBER, 5),
        Key("connect_timeout", NUMBER, 5),
        Key("retry_limit", BYTE, 0),
        Key("ca_cert_files", TEXT_LIST, ()),
        Key("client_cert_file", TEXT, ""),
        Key("client_key_file", TEXT, ""),
        Key("hedged_reads", BOOL, default=True),
    ),
    check=_check_connection,
)
REMOTE: Final = (("connection", CONNECTION),)
# Local read-ahead settings that the published samples carry; no version reads them.
READ_AHEAD: Final = ("readahead", "readahead_sec")

LOCALFS: Final = Section(
    model.LocalFs,
    (
        Key("blob_file", TEXT, ""),
        Key("dir", TEXT, ""),
        Key("alt_dirs", TEXT_LIST, ()),
    ),
    no_effect=READ_AHEAD,
)
LOCALDISK: Final = Section(
    model.LocalDisk,
    (Key("device_path", TEXT, ""), Key("disable_gpt", BOOL, default=False)),
    no_effect=READ_AHEAD,
)


def _check_scheme(scheme: str) -> str:
    return one_of(scheme, SCHEMES)


def _check_redirect_scheme(scheme: str) -> str:
    return one_of(scheme, SCHEMES) if scheme else ""


_STORAGE_KEYS: Final = (
    Key("scheme", TEXT, "https", check=_check_scheme),
    Key("endpoint", TEXT, "", required="12", check=check_endpoint),
    Key("bucket_name", TEXT, "", required="12", check=check_bucket),
    Key("object_prefix", TEXT, ""),
    Key("access_key_id", TEXT, "", secret=True),
    Key("access_key_secret", TEXT, "", secret=True),
)


def _check_storage(storage: model.ObjectStorage) -> Problems:
    """Without keys a bucket is read as anybody; with one of the two nobody can sign."""
    names = ("access_key_id", "access_key_secret")
    missing = [name for name in names if not getattr(storage, name)]
    if len(missing) == 1:
        (given,) = set(names) - set(missing)
        yield missing[0], f"missing, and {given} is set"


OSS: Final = Section(
    model.ObjectStorage,
    _STORAGE_KEYS,
    inline=REMOTE,
    no_effect=READ_AHEAD,
    check=_check_storage,
)
S3: Final = Section(
    model.ObjectStorage,
    (*_STORAGE_KEYS, Key("region", TEXT, "", required="12")),
    inline=REMOTE,
    no_effect=READ_AHEAD,
    check=_check_storage,
)
REGISTRY: Final = Section(
    model.Registry,
    (
        Key("scheme", TEXT, "https"),
        Key("host", TEXT, "", required="12", check=check_endpoint),
        Key("repo", TEXT, "", required="12", check=check_repo),
        Key("auth", OPTIONAL_TEXT, secret=True, check=check_auth),
        Key("registry_token", OPTIONAL_TEXT, secret=True, check=check_token),
        Key("blob_url_scheme", TEXT, "", check=_check_redirect_scheme),
        Key("blob_redirected_host", TEXT, "", check=check_endpoint),
    ),
    inline=REMOTE,
    no_effect=READ_AHEAD,
)
HTTP_PROXY: Final = Section(
    model.HttpProxy,
    (
        Key("addr", TEXT, "", required="12", secret=True, check=check_addr),
        Key("path", TEXT, ""),
    ),
    inline=REMOTE,
    no_effect=READ_AHEAD,
)
BACKENDS: Final = {
    "localfs": LOCALFS,
    "localdisk": LOCALDISK,
    "oss": OSS,
    "s3": S3,
    "registry": REGISTRY,
    "http-proxy": HTTP_PROXY,
}
# Keys of which a backend needs one with a value, whatever else it has.
_NEEDED: Final = {
    "localfs": (("blob_file", "dir"),),
    "localdisk": (("device_path",),),
    "oss": (("endpoint",), ("bucket_name",)),
    "s3": (("region",), ("bucket_name",)),
    "registry": (("host",), ("repo",)),
    "http-proxy": (("addr",),),
}


def check_backend(backend: model.Backend) -> Problems:
    """The section that *type* names must be there and be complete; others are not looked at."""
    if text := one_of(backend.type, BACKEND_TYPES):
        yield "type", text
        return
    chosen = getattr(backend, backend.type.replace("-", "_"))
    if chosen is None:
        yield backend.type, f'missing, and type is "{backend.type}"'
        return
    for names in _NEEDED[backend.type]:
        if not any(getattr(chosen, name) for name in names):
            yield f"{backend.type}.{names[-1]}", f"{' or '.join(names)} must not be empty"


BACKEND: Final = Section(
    model.Backend,
    (
        Key("type", TEXT, "", required="2"),
        *(Key(name, section=section) for name, section in BACKENDS.items()),
    ),
    check=check_backend,
)
EXTERNAL_BACKEND: Final = Section(
    model.ExternalBackend,
    (
        Key("patch", TEXT_MAP, ()),
        Key("type", TEXT, "", required="12"),
        Key("config", TEXT_MAP, (), secret=True),
    ),
)

FILE_CACHE: Final = Section(
    model.FileCache,
    (
        Key("work_dir", TEXT, "."),
        Key("disable_indexed_map", BOOL, default=False),
        Key("enable_encryption", BOOL, default=False),
        Key("enable_convergent_encryption", BOOL, default=False, later=True),
        Key("encryption_key", TEXT, "", secret=True),
        Key("size_limit", NUMBER, 0),
    ),
)
FS_CACHE: Final = Section(model.FsCache, (Key("work_dir", TEXT, "."),))


def check_cache(cache: model.Cache) -> Problems:
    """A cache on disk needs its section, and a directory in it."""
    chosen: model.FileCache | model.FsCache | None
    if cache.type in FILE_CACHE_TYPES:
        name, chosen = "filecache", cache.filecache
    elif cache.type == "fscache":
        name, chosen = "fscache", cache.fscache
    else:
        if text := one_of(cache.type, (*FILE_CACHE_TYPES, "fscache", *NO_CACHE_TYPES)):
            yield "type", text
        return
    if chosen is None:
        yield name, f'missing, and type is "{cache.type}"'
    elif not chosen.work_dir:
        yield f"{name}.work_dir", "must not be empty"


CACHE: Final = Section(
    model.Cache,
    (
        Key("type", TEXT, ""),
        Key("compressed", BOOL, default=False),
        Key("validate", BOOL, default=False),
        Key("prefetch", section=PREFETCH, default=model.NO_PREFETCH),
        Key("filecache", section=FILE_CACHE),
        Key("fscache", section=FS_CACHE),
    ),
    check=check_cache,
)
RAFS: Final = Section(
    model.Rafs,
    (
        Key("mode", TEXT, "direct", required="1", check=_check_mode),
        Key("batch_size", SIZE, model.DEFAULT_BATCH_SIZE, v1="amplify_io", check=_check_batch),
        Key("validate", BOOL, default=False, v1="digest_validate"),
        Key("enable_xattr", BOOL, default=False),
        Key("iostats_files", BOOL, default=False),
        Key("access_pattern", BOOL, default=False),
        Key("latest_read_files", BOOL, default=False),
        Key("prefetch", section=PREFETCH, default=model.NO_PREFETCH, v1="fs_prefetch"),
    ),
)


def _check_overlay(overlay: model.Overlay) -> Problems:
    for name in ("upper_dir", "work_dir"):
        if not getattr(overlay, name):
            yield name, "is empty: workdir and upperdir must be specified for overlayfs"


OVERLAY: Final = Section(
    model.Overlay,
    (Key("upper_dir", TEXT, "", required="2"), Key("work_dir", TEXT, "", required="2")),
    check=_check_overlay,
)
CONFIG: Final = Section(
    model.Config,
    (
        Key("version", SIZE, 2, required="2"),
        Key("id", TEXT, ""),
        Key("backend", section=BACKEND),
        Key("external_backends", sections=EXTERNAL_BACKEND, default=()),
        Key("cache", section=CACHE),
        Key("rafs", section=RAFS),
        Key("overlay", section=OVERLAY),
    ),
)
