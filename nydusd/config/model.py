"""The configuration as immutable data: the tree of version 2, whatever the file was written in.

Each part of the program is handed its own sub-object, never the whole. Names and defaults are
those of the version 2 file format; `config.v1` and `config.v2` read and write it. A `repr` is fit
for a log: what is secret stands in `SECRETS` and is never shown.

Named tuples, because every start of a daemon pays for the making of these classes: 24 frozen
dataclasses take 20 ms of the 120 that a start may take, 24 named tuples 3. Change one with
`_replace`.
"""

from typing import Any, Final, TypeVar

from nydusd.base.record import NamedTuple

DEFAULT_BATCH_SIZE = 1 << 20
MASK: Final = "***"
LOCAL_BACKENDS: Final = ("localfs", "localdisk")  # of which reading costs no round trip
FILE_CACHE_TYPES: Final = ("blobcache", "filecache")  # two names of one thing
NO_CACHE_TYPES: Final = ("", "dummycache")

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


def _shown(part: Any) -> str:  # noqa: ANN401 - any class of this module
    """`Name(field=value, …)` with `'***'` in the place of secrets."""
    secrets = SECRETS[type(part)]
    fields = (
        f"{name}={_masked(value, secrets.get(name), MASK)!r}"
        for name, value in zip(part._fields, part, strict=True)
    )
    return f"{type(part).__name__}({', '.join(fields)})"


class LocalFs(NamedTuple):
    """Blobs as files: *blob_file* for every blob id, or `dir/<blob_id>`, then *alt_dirs*."""

    blob_file: str = ""
    dir: str = ""
    alt_dirs: tuple[str, ...] = ()


class LocalDisk(NamedTuple):
    """Blobs in the GPT partitions of one disk."""

    device_path: str = ""
    disable_gpt: bool = False


class Mirror(NamedTuple):
    """Another host with the same blobs."""

    host: str
    ping_url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    auth_through: bool = False
    health_check_interval: int = 5  # seconds
    failure_limit: int = 5

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class Proxy(NamedTuple):
    """An HTTP proxy (P2P) in front of a backend."""

    url: str = ""
    ping_url: str = ""
    fallback: bool = True
    check_interval: int = 5  # seconds
    use_http: bool = False
    check_pause_elapsed: int = 300  # seconds
    dragonfly_scheduler_endpoint: str = ""

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class Connection(NamedTuple):
    """What every HTTP backend has in common."""

    proxy: Proxy = Proxy()
    mirrors: tuple[Mirror, ...] = ()
    skip_verify: bool = False
    timeout: int = 5  # seconds for a whole request; 0 = none
    connect_timeout: int = 5  # seconds; 0 = none
    retry_limit: int = 0
    ca_cert_files: tuple[str, ...] = ()
    client_cert_file: str = ""  # PEM, shown to servers that want to know who asks
    client_key_file: str = ""  # PEM; "" = in the certificate's file
    hedged_reads: bool = True  # ask the next source as well when the first is slow
    # Sent with every request; from the environment (`NYDUS_HEADER_…`), not from the file.
    headers: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class ObjectStorage(NamedTuple):
    """OSS, and with *region* S3."""

    endpoint: str
    bucket_name: str
    region: str = ""
    scheme: str = "https"
    object_prefix: str = ""
    access_key_id: str = ""
    access_key_secret: str = ""
    connection: Connection = Connection()

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class Registry(NamedTuple):
    """An OCI distribution registry."""

    host: str
    repo: str
    scheme: str = "https"
    auth: str | None = None  # base64 of user:password
    registry_token: str | None = None
    blob_url_scheme: str = ""
    blob_redirected_host: str = ""
    connection: Connection = Connection()

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class HttpProxy(NamedTuple):
    """Blobs behind plain HTTP, over TCP or a unix socket."""

    addr: str
    path: str = ""
    connection: Connection = Connection()

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class Backend(NamedTuple):
    """Where blobs come from: the section named by *type* is set, the others may be."""

    type: str
    localfs: LocalFs | None = None
    localdisk: LocalDisk | None = None
    oss: ObjectStorage | None = None
    s3: ObjectStorage | None = None
    registry: Registry | None = None
    http_proxy: HttpProxy | None = None


class Prefetch(NamedTuple):
    """How eagerly a mount fills its cache in the background."""

    enable: bool = False
    threads: int = 8
    batch_size: int = DEFAULT_BATCH_SIZE  # bytes of one backend request
    bandwidth_limit: int = 0  # bytes/s; 0 = no limit
    prefetch_all: bool = False
    stream_prefetch: bool = False


# What a file without a prefetch section means: all off and zero (clients see it in the API).
NO_PREFETCH: Final = Prefetch(threads=0, batch_size=0)


class FileCache(NamedTuple):
    """The local cache directory."""

    work_dir: str = "."
    disable_indexed_map: bool = False
    enable_encryption: bool = False
    enable_convergent_encryption: bool = False
    encryption_key: str = ""  # hex
    size_limit: int = 0  # bytes; what was not used for longest goes beyond; 0 = none

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class FsCache(NamedTuple):
    """The cache directory of the kernel's cachefiles."""

    work_dir: str = "."


class Cache(NamedTuple):
    """What is kept on local disk: `blobcache` and `filecache` are one, "" and `dummycache` none."""

    type: str = ""
    compressed: bool = False
    validate: bool = False
    prefetch: Prefetch = NO_PREFETCH
    filecache: FileCache | None = None
    fscache: FsCache | None = None


class Rafs(NamedTuple):
    """How an image is served."""

    mode: str = "direct"
    batch_size: int = DEFAULT_BATCH_SIZE  # read amplification window, bytes; 0 = off
    validate: bool = False
    enable_xattr: bool = False
    iostats_files: bool = False
    access_pattern: bool = False
    latest_read_files: bool = False
    prefetch: Prefetch = NO_PREFETCH


class Overlay(NamedTuple):
    """A writable layer above an image."""

    upper_dir: str
    work_dir: str


class ExternalBackend(NamedTuple):
    """A backend of blobs that are not the image's own; read, not used."""

    type: str
    patch: tuple[tuple[str, str], ...] = ()
    # What its keys mean is not known here, so any of them may be a secret.
    config: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """All fields, secrets masked."""
        return _shown(self)


class Config(NamedTuple):
    """One whole configuration; a FUSE mount needs *backend*, *cache* and *rafs*."""

    version: int = 2
    id: str = ""
    backend: Backend | None = None
    external_backends: tuple[ExternalBackend, ...] = ()
    cache: Cache | None = None
    rafs: Rafs | None = None
    overlay: Overlay | None = None


# What may not be shown: the whole value, a password inside a URL, the values of headers (in an
# external backend any key may be a secret).
SECRETS: Final[dict[type, dict[str, str]]] = {
    Mirror: {"host": "url", "ping_url": "url", "headers": "headers"},
    Proxy: {"url": "url", "ping_url": "url", "dragonfly_scheduler_endpoint": "url"},
    Connection: {"headers": "headers"},
    ObjectStorage: {"endpoint": "url", "access_key_id": "whole", "access_key_secret": "whole"},
    Registry: {
        "host": "url",
        "auth": "whole",
        "registry_token": "whole",
        "blob_redirected_host": "url",
    },
    HttpProxy: {"addr": "url"},
    FileCache: {"encryption_key": "whole"},
    ExternalBackend: {"config": "headers"},
}


def without_secrets(part: _T) -> _T:
    """*part* (a `Config` or any piece of one) as it may be given away.

    Keys, tokens and passwords are empty (`None` where the format allows it); a password inside a
    URL and the values of headers become `***`.
    """
    secrets = SECRETS.get(type(part), {})
    record: Any = part
    changed: dict[str, Any] = {}
    for name, value in zip(record._fields, record, strict=True):
        mark = secrets.get(name)
        if hasattr(value, "_fields"):
            changed[name] = without_secrets(value)
        elif isinstance(value, tuple) and mark is None:
            changed[name] = tuple(
                without_secrets(item) if hasattr(item, "_fields") else item for item in value
            )
        else:
            changed[name] = _masked(value, mark, record._field_defaults.get(name))
    whole: _T = record._replace(**changed)
    return whole
