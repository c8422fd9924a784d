"""The configuration as frozen data: the tree of version 2, whatever the file was written in.

Each part of the program is handed its own sub-object, never the whole. Names and defaults are
those of the version 2 file format; `config.v1` and `config.v2` read and write it. A `repr` is fit
for a log: what is secret is marked at its field (`SECRET`, `SECRET_IN_URL`) and never shown.
"""

from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, Final, TypeVar

DEFAULT_BATCH_SIZE = 1 << 20

# Marks of a field's metadata: the value is a secret, or a password may lie inside it.
SECRET: Final = {"secret": "whole"}
SECRET_IN_URL: Final = {"secret": "url"}
SECRET_HEADERS: Final = {"secret": "headers"}
MASK: Final = "***"

_T = TypeVar("_T")


def mask_url(url: str) -> str:
    """*url* with its password (or the only word before an `@`) replaced by `***`.

    All up to the last `@` counts as user and password: better too much hidden than too little.
    """
    before, at, after = url.rpartition("@")
    if not at:
        return url
    scheme, separator, user_info = before.rpartition("://")
    user, colon, _ = user_info.partition(":")
    return f"{scheme}{separator}{user + ':' if colon else ''}{MASK}@{after}"


def _masked(value: object, mark: str | None, blank: object) -> object:
    """*value* as it may be shown, by the *mark* of its field; a whole secret becomes *blank*."""
    if not value or mark is None:
        return value
    if mark == "url" and isinstance(value, str):
        return mask_url(value)
    if mark == "headers" and isinstance(value, tuple):
        return tuple((name, MASK) for name, _ in value)
    return blank


class _Shown:
    """Gives a dataclass a `repr` without its secrets."""

    __slots__ = ()

    def __repr__(self) -> str:
        """`Name(field=value, …)` with `'***'` in the place of secrets."""
        shown = (
            f"{each.name}={_masked(getattr(self, each.name), each.metadata.get('secret'), MASK)!r}"
            for each in fields(self)  # type: ignore[arg-type]
        )
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class LocalFs:
    """Blobs as files: *blob_file* for every blob id, or `dir/<blob_id>`, then *alt_dirs*."""

    blob_file: str = ""
    dir: str = ""
    alt_dirs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalDisk:
    """Blobs in the GPT partitions of one disk."""

    device_path: str = ""
    disable_gpt: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Mirror(_Shown):
    """Another host with the same blobs."""

    host: str = field(metadata=SECRET_IN_URL)
    ping_url: str = field(default="", metadata=SECRET_IN_URL)
    headers: tuple[tuple[str, str], ...] = field(default=(), metadata=SECRET_HEADERS)
    auth_through: bool = False
    health_check_interval: int = 5  # seconds
    failure_limit: int = 5


@dataclass(frozen=True, slots=True, repr=False)
class Proxy(_Shown):
    """An HTTP proxy (P2P) in front of a backend."""

    url: str = field(default="", metadata=SECRET_IN_URL)
    ping_url: str = field(default="", metadata=SECRET_IN_URL)
    fallback: bool = True
    check_interval: int = 5  # seconds
    use_http: bool = False
    check_pause_elapsed: int = 300  # seconds
    dragonfly_scheduler_endpoint: str = field(default="", metadata=SECRET_IN_URL)


@dataclass(frozen=True, slots=True, repr=False)
class Connection(_Shown):
    """What every HTTP backend has in common."""

    proxy: Proxy = field(default_factory=Proxy)
    mirrors: tuple[Mirror, ...] = ()
    skip_verify: bool = False
    timeout: int = 5  # seconds for a whole request; 0 = none
    connect_timeout: int = 5  # seconds; 0 = none
    retry_limit: int = 0
    ca_cert_files: tuple[str, ...] = ()
    # Sent with every request; from the environment (`NYDUS_HEADER_…`), not from the file.
    headers: tuple[tuple[str, str], ...] = field(default=(), metadata=SECRET_HEADERS)


@dataclass(frozen=True, slots=True, repr=False)
class ObjectStorage(_Shown):
    """OSS, and with *region* S3."""

    endpoint: str = field(metadata=SECRET_IN_URL)
    bucket_name: str
    region: str = ""
    scheme: str = "https"
    object_prefix: str = ""
    access_key_id: str = field(default="", metadata=SECRET)
    access_key_secret: str = field(default="", metadata=SECRET)
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True, slots=True, repr=False)
class Registry(_Shown):
    """An OCI distribution registry."""

    host: str = field(metadata=SECRET_IN_URL)
    repo: str
    scheme: str = "https"
    auth: str | None = field(default=None, metadata=SECRET)  # base64 of user:password
    registry_token: str | None = field(default=None, metadata=SECRET)
    blob_url_scheme: str = ""
    blob_redirected_host: str = field(default="", metadata=SECRET_IN_URL)
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True, slots=True, repr=False)
class HttpProxy(_Shown):
    """Blobs behind plain HTTP, over TCP or a unix socket."""

    addr: str = field(metadata=SECRET_IN_URL)
    path: str = ""
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True, slots=True)
class Backend:
    """Where blobs come from: the section named by *type* is set, the others may be."""

    type: str
    localfs: LocalFs | None = None
    localdisk: LocalDisk | None = None
    oss: ObjectStorage | None = None
    s3: ObjectStorage | None = None
    registry: Registry | None = None
    http_proxy: HttpProxy | None = None


@dataclass(frozen=True, slots=True)
class Prefetch:
    """How eagerly a mount fills its cache in the background."""

    enable: bool = False
    threads: int = 8
    batch_size: int = DEFAULT_BATCH_SIZE  # bytes of one backend request
    bandwidth_limit: int = 0  # bytes/s; 0 = no limit
    prefetch_all: bool = False
    stream_prefetch: bool = False


# What a file without a prefetch section means: all off and zero (clients see it in the API).
NO_PREFETCH: Final = Prefetch(threads=0, batch_size=0)


@dataclass(frozen=True, slots=True, repr=False)
class FileCache(_Shown):
    """The local cache directory."""

    work_dir: str = "."
    disable_indexed_map: bool = False
    enable_encryption: bool = False
    enable_convergent_encryption: bool = False
    encryption_key: str = field(default="", metadata=SECRET)  # hex


@dataclass(frozen=True, slots=True)
class FsCache:
    """The cache directory of the kernel's cachefiles."""

    work_dir: str = "."


@dataclass(frozen=True, slots=True)
class Cache:
    """What is kept on local disk: `blobcache` and `filecache` are one, "" and `dummycache` none."""

    type: str = ""
    compressed: bool = False
    validate: bool = False
    prefetch: Prefetch = field(default=NO_PREFETCH)
    filecache: FileCache | None = None
    fscache: FsCache | None = None


@dataclass(frozen=True, slots=True)
class Rafs:
    """How an image is served."""

    mode: str = "direct"
    batch_size: int = DEFAULT_BATCH_SIZE  # read amplification window, bytes; 0 = off
    validate: bool = False
    enable_xattr: bool = False
    iostats_files: bool = False
    access_pattern: bool = False
    latest_read_files: bool = False
    prefetch: Prefetch = field(default=NO_PREFETCH)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A writable layer above an image."""

    upper_dir: str
    work_dir: str


@dataclass(frozen=True, slots=True, repr=False)
class ExternalBackend(_Shown):
    """A backend of blobs that are not the image's own; read, not used."""

    type: str
    patch: tuple[tuple[str, str], ...] = ()
    # What its keys mean is not known here, so any of them may be a secret.
    config: tuple[tuple[str, str], ...] = field(default=(), metadata=SECRET_HEADERS)


@dataclass(frozen=True, slots=True)
class Config:
    """One whole configuration; a FUSE mount needs *backend*, *cache* and *rafs*."""

    version: int = 2
    id: str = ""
    backend: Backend | None = None
    external_backends: tuple[ExternalBackend, ...] = ()
    cache: Cache | None = None
    rafs: Rafs | None = None
    overlay: Overlay | None = None


def without_secrets(part: _T) -> _T:
    """*part* (a `Config` or any piece of one) as it may be given away.

    Keys, tokens and passwords are empty (`None` where the format allows it); a password inside a
    URL and the values of headers become `***`.
    """
    changed: dict[str, Any] = {}
    for each in fields(part):  # type: ignore[arg-type]
        value = getattr(part, each.name)
        mark = each.metadata.get("secret")
        if is_dataclass(value):
            value = without_secrets(value)
        elif isinstance(value, tuple) and mark is None:
            value = tuple(without_secrets(item) if is_dataclass(item) else item for item in value)
        else:
            value = _masked(value, mark, each.default)
        changed[each.name] = value
    return replace(part, **changed)  # type: ignore[type-var]
