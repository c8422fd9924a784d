"""The configuration as frozen data: the tree of version 2, whatever the file was written in.

Each part of the program is handed its own sub-object, never the whole. Names and defaults are
those of the version 2 file format; `config.v1` and `config.v2` read and write it.
"""

from dataclasses import dataclass, field

DEFAULT_BATCH_SIZE = 1 << 20


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


@dataclass(frozen=True, slots=True)
class Mirror:
    """Another host with the same blobs."""

    host: str
    ping_url: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    auth_through: bool = False
    health_check_interval: int = 5  # seconds
    failure_limit: int = 5


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy (P2P) in front of a backend."""

    url: str = ""
    ping_url: str = ""
    fallback: bool = True
    check_interval: int = 5  # seconds
    use_http: bool = False
    check_pause_elapsed: int = 300  # seconds
    dragonfly_scheduler_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Connection:
    """What every HTTP backend has in common."""

    proxy: Proxy = field(default_factory=Proxy)
    mirrors: tuple[Mirror, ...] = ()
    skip_verify: bool = False
    timeout: int = 5  # seconds for a whole request; 0 = none
    connect_timeout: int = 5  # seconds; 0 = none
    retry_limit: int = 0
    ca_cert_files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectStorage:
    """OSS, and with *region* S3."""

    endpoint: str
    bucket_name: str
    region: str = ""
    scheme: str = "https"
    object_prefix: str = ""
    access_key_id: str = ""
    access_key_secret: str = ""
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True, slots=True)
class Registry:
    """An OCI distribution registry."""

    host: str
    repo: str
    scheme: str = "https"
    auth: str | None = None  # base64 of user:password
    registry_token: str | None = None
    blob_url_scheme: str = ""
    blob_redirected_host: str = ""
    connection: Connection = field(default_factory=Connection)


@dataclass(frozen=True, slots=True)
class HttpProxy:
    """Blobs behind plain HTTP, over TCP or a unix socket."""

    addr: str
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


@dataclass(frozen=True, slots=True)
class FileCache:
    """The local cache directory."""

    work_dir: str = "."
    disable_indexed_map: bool = False
    enable_encryption: bool = False
    enable_convergent_encryption: bool = False
    encryption_key: str = ""  # hex


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
    prefetch: Prefetch = field(default_factory=Prefetch)
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
    prefetch: Prefetch = field(default_factory=Prefetch)


@dataclass(frozen=True, slots=True)
class Overlay:
    """A writable layer above an image."""

    upper_dir: str
    work_dir: str


@dataclass(frozen=True, slots=True)
class ExternalBackend:
    """A backend of blobs that are not the image's own; read, not used."""

    type: str
    patch: tuple[tuple[str, str], ...] = ()
    config: tuple[tuple[str, str], ...] = ()


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
