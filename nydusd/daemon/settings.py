"""What one daemon was asked to serve: the command line after it has been checked.

`cli` makes a `Settings` or a `SingletonSettings`, `daemon` lives by it. Paths are text with
surrogate escapes where a name is not UTF-8 (`os.fsencode` gives the bytes back).
"""

from nydusd.base.record import NamedTuple
from nydusd.config.blob_entry import BlobEntry
from nydusd.config.model import Config


class Settings(NamedTuple):
    """A FUSE daemon: where it is mounted, what it shows there, how it was configured.

    Without a *bootstrap* the root is an empty pseudo directory and *config* is `None`: the file
    that was named with `--config` is not looked at then. *config_text* is the configuration as it
    was written (or generated from *localfs_dir*), for the state of an upgrade: it may hold
    secrets.
    """

    mountpoint: str  # an existing directory, absolute, without symbolic links
    threads: int = 4
    failover_policy: str = "resend"  # none, resend, flush
    writable: bool = False
    shared_dir: str | None = None  # a host directory to show, instead of an image
    bootstrap: str | None = None
    config: Config | None = None
    config_text: str = ""  # not shown
    localfs_dir: str | None = None
    prefetch_files: tuple[str, ...] = ()  # absolute paths inside the image
    virtual_mountpoint: str = "/"
    apisock: str | None = None  # where the control socket is to be
    metrics_address: str | None = None  # HOST:PORT where counters can be had over TCP
    id: str | None = None  # the supervisor's name for this daemon
    supervisor: str | None = None  # socket path
    waits: bool = False  # for the session of another daemon, instead of mounting

    def __repr__(self) -> str:
        """What it asks for, without the text that may hold secrets."""
        return f"Settings(mountpoint={self.mountpoint!r}, bootstrap={self.bootstrap!r})"


class SingletonSettings(NamedTuple):
    """A daemon that mounts nothing: the kernel asks it for the blobs that it was told of.

    *fscache* is the directory of the kernel's cache (cachefiles); None = nobody is served, the API
    alone is there.
    """

    entries: tuple[BlobEntry, ...] = ()  # blobs known from the start
    fscache: str | None = None  # absolute, an existing directory
    fscache_tag: str | None = None  # name of that cache
    fscache_threads: int = 4
    apisock: str | None = None
    id: str | None = None
    supervisor: str | None = None
    waits: bool = False  # for the session of another daemon
